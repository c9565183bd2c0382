"""PMC-VQA: generated questions about figures of open-access articles."""
