"""Metrics, their bootstrap intervals, and the trivial predictors that stand beside them."""

from multimed_jax.metrics.structure import tm_score

__all__ = ["tm_score"]
