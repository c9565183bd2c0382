"""Figures and captions of articles in JATS XML."""
