"""Mammograms in DICOM, benign or malignant (CBIS-DDSM)."""
