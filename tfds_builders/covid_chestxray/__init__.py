"""Chest X-rays with clinical notes from publications and case archives (ieee8023)."""
