"""Grade of diabetic retinopathy of a retinal photograph: ordinal (CORAL), grades 0 to 4.

The grades of a source are its class names in order, from none to proliferative. Reported are
accuracy, quadratic weighted kappa and the mean error in grades, all of the most probable grade.
"""

from __future__ import annotations

from multimed_jax.layers.classification_task import make_graded_task
from multimed_jax.metrics.ordinal import LOWER_IS_BETTER, grade_metrics, weighted_grades

SPEC = make_graded_task(
    "retinopathy",
    "multimed_jax.tasks.retinopathy:SPEC",
    grade_metrics,
    weighted_grades,
    LOWER_IS_BETTER,
)
