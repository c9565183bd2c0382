"""Medical Abstracts Text Classification Corpus (TU Munich, sebis)."""
