"""Metrics, their bootstrap intervals, and the trivial predictors that stand beside them."""
