"""Chest CT of COVID-19, other pneumonia and healthy people, as pictures (CC-CCII)."""
