"""Chest X-rays in DICOM read by three radiologists each (VinDr-CXR)."""
