"""Type of a single cell from its expressed genes, ontology-named where the source allows.

Cross-entropy over the source's types.
"""

from __future__ import annotations

from multimed_jax.layers.classification_task import make_classification_task
from multimed_jax.metrics.classification import selected_metrics

SPEC = make_classification_task(
    "cell_type",
    "multimed_jax.tasks.cell_type:SPEC",
    selected_metrics("accuracy", "macro_f1"),
)
