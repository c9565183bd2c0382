"""Chest CT slices of COVID-19, other pneumonia and healthy people (COVIDx CT)."""
