"""Retinal OCT B-scans in four classes (Kermany, OCT2017)."""
