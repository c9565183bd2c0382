"""Disease of an X-ray, OCT, CT or text record: the union of the sources' classes by namespace.

The loss is logit-adjusted cross-entropy (Menon et al. 2021): the head's leaves learn scores free of
the class frequencies of the source, to which the log frequencies of training are added. Predictions
are the sum, that is the posterior under the frequencies of training: accuracy is the primary metric
and this posterior maximises it. Balanced accuracy is reported for the same predictions.
"""

from __future__ import annotations

from multimed_jax.layers.classification_task import make_classification_task
from multimed_jax.metrics.classification import selected_metrics

# Tau of the paper; 1 is the value for which it proves consistency (its theorem 1).
LOGIT_ADJUSTMENT = 1.0

SPEC = make_classification_task(
    "disease",
    "multimed_jax.tasks.disease:SPEC",
    selected_metrics(
        "accuracy", "balanced_accuracy", "macro_f1", "auroc", "sensitivity", "specificity"
    ),
    LOGIT_ADJUSTMENT,
)
