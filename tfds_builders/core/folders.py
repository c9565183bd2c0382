"""Folders of a source: listed in a fixed order, system files ignored, strangers refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multimed_jax.types import UserError

_IGNORED = ("thumbs.db", "desktop.ini", "__macosx")


def _visible(path: Path) -> bool:
    return not path.name.startswith(".") and path.name.lower() not in _IGNORED


def subfolders(folder: Path, expected: Sequence[str], others_allowed: bool = False) -> list[Path]:
    """The expected subfolders of `folder`, in the given order.

    Raises:
        UserError: where the folder or an expected subfolder is missing, or holds another one
            (an unknown class) and `others_allowed` is False.
    """
    if not folder.is_dir():
        raise UserError(
            f"the folder {folder} does not exist; expected a folder with: {', '.join(expected)}"
        )
    there = sorted(path.name for path in folder.iterdir() if path.is_dir() and _visible(path))
    for name in expected:
        if name not in there:
            raise UserError(
                f"the folder {folder} has no subfolder {name!r}; expected: "
                f"{', '.join(expected)}; found: {', '.join(there) or 'none'}"
            )
    if not others_allowed:
        for name in there:
            if name not in expected:
                raise UserError(
                    f"the folder {folder} has the unknown subfolder {name!r}; accepted: "
                    f"{', '.join(expected)}"
                )
    return [folder / name for name in expected]


def files(folder: Path, extensions: Sequence[str]) -> list[Path]:
    """The files of a folder with one of the extensions (any case), sorted by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and _visible(path) and path.suffix.lower() in extensions
    )
