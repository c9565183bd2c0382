"""Projection radiography (xray.view): a grey view as 2-D patches.

Input: JPEG or PNG bytes of one view, 8 or 16 bits, bright bone (a builder inverts MONOCHROME1).
Output: patches with black at -1 and white at 1; rows run down and columns right as stored. Two
views of one patient are two items.
"""

from __future__ import annotations

from multimed_jax.layers.image_modality import make_image_modality

SPEC = make_image_modality("xray", 3, "xray.view", "multimed_jax.modalities.xray:SPEC")
