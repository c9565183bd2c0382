"""Protein chains of the RCSB PDB: mmCIF files and the clusters of their sequences."""
