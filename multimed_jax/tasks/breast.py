"""Breast histology and mammography: benign or malignant, or a stage, as the source's classes say.

The classes of a source are read as stages in order of severity (CORAL); of two classes, benign and
malignant, that is logistic regression. For a source of subtypes without an order turn the option
`ordered` off: plain cross-entropy.
"""

from __future__ import annotations

from multimed_jax.layers.classification_task import make_graded_task
from multimed_jax.metrics.classification import selected_metrics

SPEC = make_graded_task(
    "breast",
    "multimed_jax.tasks.breast:SPEC",
    selected_metrics("accuracy", "auroc", "balanced_accuracy"),
)
