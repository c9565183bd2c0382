"""The tiny phantoms, built once, as the tests of whole commands have them."""

from tests.end_to_end.conftest import tiny_data

__all__ = ["tiny_data"]
