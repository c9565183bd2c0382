"""Layers that know no modality and no task."""
