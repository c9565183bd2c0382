"""Magnetic resonance imaging (mri.slice): a grey slice as 2-D patches.

Input: JPEG or PNG bytes of one slice; intensities of MRI have no physical unit, so grey values are
taken as stored (8-bit scale, see `layers.images`). Output: patches with black at -1 and white at 1;
rows run down and columns right as stored. Volumes are a stream of their own.
"""

from __future__ import annotations

from multimed_jax.layers.image_modality import make_image_modality

SPEC = make_image_modality("mri", 5, "mri.slice", "multimed_jax.modalities.mri:SPEC")
