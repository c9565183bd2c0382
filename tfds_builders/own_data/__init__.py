"""A folder and a table of your own: any modality, any target, no code."""
