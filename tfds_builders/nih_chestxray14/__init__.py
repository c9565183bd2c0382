"""Chest X-rays with 14 findings mined from reports (NIH ChestX-ray14)."""
