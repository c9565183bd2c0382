"""Breast histology photographs: normal, benign, in situ, invasive (BACH)."""
