"""Phantoms: simulated studies with known ceilings, never clinical evidence."""
