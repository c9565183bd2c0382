"""A damaged HDF5 file ends in one sentence, also where the library would hang or crash on it."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

from multimed_jax.types import UserError

# Starting the process, and reading at the pace of a slow disk.
LEAST_S = 60.0
BYTES_PER_S = 10_000_000
_PROBE = Path(__file__).with_name("hdf5_probe.py")


def check_hdf5(path: Path, least_s: float = LEAST_S) -> None:
    """Has a process of its own read the whole file first.

    Args:
        path: of the file.
        least_s: for which the process may run; large files are given more.

    Raises:
        UserError: the file cannot be read whole, or not in time; it is named.
    """
    about = path.stat()
    _read_once(path, least_s + about.st_size / BYTES_PER_S, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=64)  # a build opens its files once for every split
def _read_once(path: Path, limit_s: float, size: int, changed_ns: int) -> None:
    command = [sys.executable, "-I", str(_PROBE), str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"the file {path} is truncated or damaged: reading it did not end in {limit_s:.0f} s"
        ) from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        reason = said[-1] if said and done.returncode == 1 else "the HDF5 library crashes on it"
        raise UserError(f"the file {path} is truncated or damaged: {reason}")
