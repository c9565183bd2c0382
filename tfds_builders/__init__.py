"""Builders of medical sources: original layouts in, sharded canonical records out."""
