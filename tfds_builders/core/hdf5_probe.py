"""Reads all of an HDF5 file and says nothing: run in a process of its own by `hdf5_guard`.

Flipped bytes can send the HDF5 library into a loop or out of its memory, which no exception ends;
a process can be ended from outside. Usage: python hdf5_probe.py FILE
"""

from __future__ import annotations

import resource
import sys
from typing import Any

import h5py

_MEMORY = 16 << 30
_ELEMENTS = 4_000_000


def read_all(path: str) -> None:
    """Reads every dataset and attribute, a part of each at a time."""
    with h5py.File(path, "r") as file:

        def visit(name: str, item: Any) -> None:
            for key in item.attrs:
                item.attrs[key]
            if isinstance(item, h5py.Dataset):
                _read(item)

        visit("/", file)
        file.visititems(visit)


def _read(item: Any) -> None:
    if item.shape is None:
        return
    if not item.shape:
        item[()]
        return
    of_one_row = max(1, item.size // max(item.shape[0], 1))
    rows = max(1, _ELEMENTS // of_one_row)
    for start in range(0, item.shape[0], rows):
        item[start : start + rows]


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        read_all(sys.argv[1])
    except Exception as error:  # whatever damaged bytes lead the library to
        print(" ".join(str(error).split())[:160] or type(error).__name__, file=sys.stderr)
        sys.exit(1)
