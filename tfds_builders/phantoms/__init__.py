"""Phantoms: simulated studies of simulated patients, with known ceilings. Never clinical evidence."""
