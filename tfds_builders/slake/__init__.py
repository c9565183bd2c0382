"""SLAKE: questions about radiological pictures in English and Chinese."""
