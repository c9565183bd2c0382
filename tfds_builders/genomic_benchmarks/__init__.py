"""Genomic Benchmarks: classes of regulatory DNA, as coordinates or sequences."""
