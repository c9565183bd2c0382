"""Colour fundus photographs with diagnostic key words by eye (ODIR-5K)."""
