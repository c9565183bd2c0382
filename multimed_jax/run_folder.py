"""The run folder: its manifest, its lock, and how its JSON files are written and read."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from multimed_jax.config import RunConfig
from multimed_jax.config_io import to_json
from multimed_jax.types import UserError

# Raised when a stored file changes its meaning; older and newer files are refused by name.
FORMAT = 1

# Fields that may differ between the two halves of one run: they move it, time it, or measure the
# finished model, and do not change what is learnt. All others must be equal.
FREE_FIELDS = (
    "data_dir",
    "data.cache_mib",
    "data.decoded_cache",
    "data.decoded_cache_gib",
    "data.log_samples",
    "data.prefetch",
    "data.read_timeout_s",
    "data.threads",
    "mesh",
    "checkpoint",
    "eval",
    "evals",
    "log_every_steps",
    "optim.max_skipped",
    "profile",
)

_ABSENT = "nothing"

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes beside `path` and renames: a reader sees the old file or the new one, never half."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, **values}, file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_json(path: Path, what: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """Reads what `write_json` wrote.

    Raises:
        UserError: where the file is unreadable, damaged, of another format, or lacks one of `keys`.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        values = None
    if not isinstance(values, dict) or "format" not in values:
        raise UserError(f"{path} is damaged: it is not {what}")
    if values["format"] != FORMAT:
        raise UserError(
            f"{path} has format {values['format']}; this version of multimed_jax reads {FORMAT}"
        )
    lacking = [key for key in keys if key not in values]
    if lacking:
        raise UserError(f"{path} is damaged: {what} has the key {lacking[0]!r}, and it has not")
    return values


def hash_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Relative name -> {"sha256", "size"} of every file below `folder`."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if not p.is_dir()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[path.relative_to(folder).as_posix()] = {"sha256": digest, "size": path.stat().st_size}
    return found


# ------------------------------------------------------------------------------ manifest


def write_manifest(path: Path, **values: Any) -> None:
    """Writes the run's manifest atomically: config, hashes, versions, mesh, namespaces, budgets.

    It holds no machine path and no host name except the user's own `config.data_dir`.
    """
    if jax.process_index() == 0:
        write_json(path, values)


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads a run's manifest. Raises UserError where it is absent, damaged or of another format."""
    return read_json(path, "a run's manifest", ("config", "config_hash"))


def check_same_run(manifest: Mapping[str, Any], config: RunConfig) -> None:
    """Raises UserError where `config` would go on with a run that another config began.

    Every field counts except `FREE_FIELDS`; the sentence names those that differ.
    """
    stored = dict(_leaves(manifest["config"]))
    wanted = dict(_leaves(json.loads(json.dumps(to_json(config)))))
    names = [*stored, *(name for name in wanted if name not in stored)]
    differences = []
    for name in names:
        if any(name == free or name.startswith((f"{free}.", f"{free}[")) for free in FREE_FIELDS):
            continue
        old = stored[name] if name in stored else _ABSENT
        new = wanted[name] if name in wanted else _ABSENT
        if old != new:
            differences.append(f"{name} = {old}, this config says {new}")
    if differences:
        shown = "; ".join(differences[:5])
        more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise UserError(
            f"the run folder was made with {shown}{more}; use another --workdir, or the values "
            "that the run began with"
        )


def check_same_data(manifest: Mapping[str, Any], found: Mapping[str, str], data_dir: str) -> None:
    """Raises UserError where a source was built anew, or otherwise, since the run began.

    Args:
        manifest: of the run.
        found: source name -> content hash of what lies in `data_dir` now.
        data_dir: for the sentence.
    """
    for name, digest in manifest["datasets"].items():
        held = found[name] if name in found else _ABSENT
        if held != digest:
            raise UserError(
                f"the run was trained on {name} with content hash {digest}, but data_dir "
                f"{data_dir} holds {held}"
            )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """("data.sources[0].weight", 1.0), ...; an empty container is a leaf."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name}[{index}]")
    else:
        yield name, value


# ---------------------------------------------------------------------------------- lock


@contextlib.contextmanager
def lock_workdir(path: Path) -> Iterator[None]:
    """Holds the run folder for one job; the system frees it when the process ends, however it ends.

    Process 0 holds it for all processes of a job.

    Raises:
        UserError: where another process holds it, or the folder is absent or cannot be written,
            now or (a full disk) while it is held.
    """
    if jax.process_index() != 0:
        with _disk_errors(path):
            yield
        return
    try:
        file = (path / ".lock").open("a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--workdir {path} cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"--workdir {path} is in use by another process; wait for it or use another folder"
            ) from None
        except OSError as error:
            raise UserError(f"--workdir {path} cannot be locked: {error.strerror}") from None
        with _disk_errors(path):
            yield


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        raise UserError(
            f"--workdir {path} can no longer be written: {error.strerror}; the last finished "
            "checkpoint stays"
        ) from error
