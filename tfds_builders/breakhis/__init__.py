"""Breast tumours under four magnifications, benign or malignant (BreakHis)."""
