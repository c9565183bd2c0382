"""Evaluators: one file each, every one yields `ResultRow`s for a trained model."""
