"""Chest X-rays with and without COVID-19 from several collections (COVIDx CXR)."""
