"""Protein chains with their backbones: PSICOV-150 targets and the families of THESEUS."""
