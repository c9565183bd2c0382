"""Questions about the films of the COVID-19 image data collection, written from its table."""
