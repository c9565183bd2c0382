"""Regulatory DNA elements measured by lentiMPRA (Agarwal et al.)."""
