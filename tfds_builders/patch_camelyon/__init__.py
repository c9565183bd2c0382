"""Tiles of lymph nodes with or without metastases of breast cancer (PatchCamelyon)."""
