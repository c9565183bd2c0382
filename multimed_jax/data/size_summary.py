"""What is asked of the sizes of a whole split at once, kept so that nobody passes over them again.

It lies in the sidecar, one for each set of tasks that a source is used for (a digit a task):

    summary-<used>/largest.npy             int64 [3, S]  see `Summary.largest`
                   sampled_tokens.npy      int32 [k, S]  every n-th drawable record
                   sampled_has_target.npy  bool  [k, tasks]
                   rows.npy                int64 [m]     drawable rows, where some are not
                   has_target.npy          bool  [n, tasks], where a task is not used

It is made at the first opening, by process 0, a piece after the other.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Int32

from multimed_jax.types import UserError

# Records of a source that its mean shares are taken from, at most twice as many.
SAMPLED = 1 << 16
_PIECE = 1 << 18
# Smaller arrays may stay mapped.
_SMALL_BYTES = 1 << 22
_NAMES = ("largest", "sampled_tokens", "sampled_has_target", "rows", "has_target")


@dataclasses.dataclass(frozen=True)
class Summary:
    """See the head of the module.

    Attributes:
        largest: [0] most tokens of each stream in a drawable record; [1] tokens of the longest
            drawable record, [2] its row, repeated.
        sampled_tokens: of every n-th drawable record.
        sampled_has_target: of the same.
        rows: None where all records are drawable.
        has_target: None where every task is used.
    """

    largest: Int[np.ndarray, "3 S"]
    sampled_tokens: Int32[np.ndarray, "k S"]
    sampled_has_target: Bool[np.ndarray, "k tasks"]
    rows: Int[np.ndarray, "m"] | None
    has_target: Bool[np.ndarray, "n tasks"] | None = None


def summarise(
    tokens: Int32[np.ndarray, "n S"],
    has_target: Bool[np.ndarray, "n tasks"],
    used: Bool[np.ndarray, "tasks"] | None = None,
) -> Summary:
    """The summary of arrays, which may be mapped from files: no copy of them is made.

    Args:
        tokens: of a split.
        has_target: of the same.
        used: tasks that count; None is all.
    """
    n, streams = tokens.shape
    restricted = None if used is None or used.all() else has_target & used
    targets = has_target if restricted is None else restricted
    largest = np.zeros((3, streams), np.int64)
    longest, drawable_rows, all_drawable = -1, [], True
    for start, stop in _pieces(n):
        piece = np.asarray(tokens[start:stop])
        drawable = piece.any(axis=1) & targets[start:stop].any(axis=1)
        all_drawable &= bool(drawable.all())
        rows = np.flatnonzero(drawable)
        drawable_rows.append(rows + start)
        if not len(rows):
            continue
        piece = piece[rows]
        largest[0] = np.maximum(largest[0], piece.max(axis=0))
        total = piece.sum(axis=1)
        worst = int(total.argmax())
        if total[worst] > longest:
            longest = int(total[worst])
            largest[1], largest[2] = piece[worst], rows[worst] + start
        let_go(tokens, has_target)
    if all_drawable:
        rows, number = None, n
    else:
        rows = np.concatenate(drawable_rows or [np.zeros(0, np.int64)])
        number = len(rows)
    sampled = np.arange(0, number, max(1, number // SAMPLED))
    sampled = sampled if rows is None else rows[sampled]
    return Summary(largest, tokens[sampled], targets[sampled], rows, restricted)


def open_summary(
    sidecar: Path,
    tokens: Int32[np.ndarray, "n S"],
    has_target: Bool[np.ndarray, "n tasks"],
    used: Bool[np.ndarray, "tasks"],
    write: bool,
) -> Summary:
    """The summary in a sidecar; makes it where there is none, and keeps it there if `write`.

    Raises:
        UserError: where the files are damaged.
    """
    folder = sidecar / f"summary-{''.join('01'[int(u)] for u in used)}"
    if not folder.is_dir():
        summary = summarise(tokens, has_target, used)
        if not (write and _save(folder, summary)):
            return summary
    try:
        return _load(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"the sizes in {sidecar} cannot be read ({error}); delete them") from error


def let_go(*arrays: np.ndarray | None) -> None:
    """Takes the pages of mapped arrays out of this process; the system keeps them cached.

    A gather at random rows touches every page within a few windows, and the process would seem to
    hold the whole file.
    """
    for array in arrays:
        owner = array
        while isinstance(owner, np.ndarray):
            if owner.nbytes < _SMALL_BYTES:
                owner = None
                break
            owner = owner.base
        if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            owner.madvise(mmap.MADV_DONTNEED)


# ------------------------------------------------------------------------------- internals


def _load(folder: Path) -> Summary:
    arrays = {}
    for name in _NAMES:
        path = folder / f"{name}.npy"
        optional = name in ("rows", "has_target") and not path.exists()
        arrays[name] = None if optional else np.load(path, mmap_mode="r", allow_pickle=False)
    return Summary(**arrays)  # type: ignore[arg-type]


def _save(folder: Path, summary: Summary) -> bool:
    """Writes it, visible only when complete; False where the folder cannot be written."""
    temporary = folder.with_name(f".{folder.name}-{os.getpid()}")
    try:
        temporary.mkdir()
    except OSError:
        return False
    try:
        for name in _NAMES:
            if (array := getattr(summary, name)) is not None:
                np.save(temporary / f"{name}.npy", array)
        os.rename(temporary, folder)
    except OSError:
        return folder.is_dir()  # another run finished first
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def _pieces(n: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, _PIECE):
        yield start, min(n, start + _PIECE)
