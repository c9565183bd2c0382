"""Experiments of the Single Cell Expression Atlas: cells with their inferred types."""
