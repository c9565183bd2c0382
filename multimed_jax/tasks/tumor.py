"""Tumor type of a brain MRI slice (glioma, meningioma, pituitary, none): cross-entropy."""

from __future__ import annotations

from multimed_jax.layers.classification_task import make_classification_task
from multimed_jax.metrics.classification import selected_metrics

SPEC = make_classification_task(
    "tumor",
    "multimed_jax.tasks.tumor:SPEC",
    selected_metrics("accuracy", "macro_f1"),
)
