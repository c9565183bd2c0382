"""Imagined or executed movement of an EEG trial, classes as the source defines: cross-entropy.

Within-session and leave-one-subject-out figures are kept apart by the split mode of their source.
"""

from __future__ import annotations

from multimed_jax.layers.classification_task import make_classification_task
from multimed_jax.metrics.classification import selected_metrics

SPEC = make_classification_task(
    "motor",
    "multimed_jax.tasks.motor:SPEC",
    selected_metrics("accuracy", "kappa"),
)
