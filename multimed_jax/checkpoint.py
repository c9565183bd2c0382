"""Checkpoints that are verified before they are trusted.

    checkpoints/100/...            a step as Orbax commits it (renamed into place when complete)
    checkpoints/sha256/100.json    size and SHA-256 of every file of the step

Orbax alone restores a damaged data file without an error (39 of 40 single-bit flips), so a step
counts only once its list is written, and a restore compares every file with the list.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int
from orbax.checkpoint import v1 as ocp

from multimed_jax.run_folder import (
    check_same_run,
    hash_files,
    lock_workdir,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
)
from multimed_jax.saved_tree import check_signatures, from_saved, signatures, to_saved
from multimed_jax.types import Array, UserError

__all__ = ["Checkpoints", "check_same_run", "lock_workdir", "read_manifest", "write_manifest"]

log = logging.getLogger(__name__)


_STEP = re.compile(r"0|[1-9][0-9]*")


def _is_news(record: logging.LogRecord) -> bool:
    """False for what Orbax's threads log of a failed save: `Checkpoints.wait` raises it."""
    return not (record.exc_info and "orbax" in record.pathname)


class Checkpoints:
    """The steps of one run, saved asynchronously, kept and restored with verification.

    Every process of a job makes the same calls; process 0 alone writes lists and removes steps.
    Opening a folder and restoring from it write nothing.
    """

    def __init__(self, directory: Path, keep: int):
        """Opens a folder of checkpoints, which may not exist yet.

        Args:
            directory: of the steps.
            keep: how many of the newest steps stay.

        Raises:
            UserError: where `keep` is below 1.
        """
        if keep < 1:
            raise UserError(f"config.checkpoint.keep is {keep}; it must be at least 1")
        self._directory = Path(directory).absolute()
        self._keep = keep
        self._saving: threading.Thread | None = None
        self._failure: tuple[int, BaseException] | None = None
        self._rejected: set[int] = set()  # newer than the restored step, and damaged
        logging.getLogger("absl").addFilter(_is_news)

    def save(self, step: int, state: Any, cursor: Int[Array, "P 2"]) -> None:
        """Copies the state to the host and returns; writing goes on in a thread.

        Args:
            step: number of finished steps; above every step that is still trusted.
            state: any pytree of arrays.
            cursor: the data state after the step, the same on every process.

        Raises:
            UserError: where the previous save failed, or the folder cannot be written or is gone.
        """
        self.wait()
        trusted = [s for s in self._listed() if s not in self._rejected]
        if trusted and step <= trusted[-1]:
            raise ValueError(f"step {step} is saved after step {trusted[-1]}")
        try:
            if jax.process_index() == 0:
                # Never its parents: a run folder that has gone is not begun anew without its past.
                self._directory.mkdir(exist_ok=True)
                (self._directory / "sha256").mkdir(exist_ok=True)
                self._remove_untrusted()
            _barrier(f"checkpoint {step}")
            self._rejected.clear()
            tree = {"state": state, "cursor": np.array(cursor)}
            response = ocp.save_async(str(self._directory / str(step)), to_saved(tree))
        except OSError as error:
            raise UserError(
                f"checkpoints cannot be written to {self._directory}: {error}"
            ) from error
        self._saving = threading.Thread(
            target=self._finish, args=(step, response, signatures(tree)), name=f"checkpoint-{step}"
        )
        self._saving.start()

    def wait(self) -> None:
        """Returns once the last save is committed and listed. Raises UserError where it failed."""
        if self._saving is not None:
            self._saving.join()
            self._saving = None
        if self._failure is not None:
            (step, error), self._failure = self._failure, None
            raise UserError(
                f"saving step {step} to {self._directory} failed: {_one_line(error)}; earlier "
                "steps are kept"
            ) from error

    def close(self) -> None:
        """Waits for the last save. Raises UserError where it failed and `wait` has not said so."""
        self.wait()

    def latest(self) -> int | None:
        """The newest step that is committed and listed, not yet verified; None where none is."""
        steps = self._listed()
        return steps[-1] if steps else None

    def restore(
        self, abstract_state: Any, abstract_cursor: Any
    ) -> tuple[int, Any, Int[np.ndarray, "P 2"]]:
        """Restores the newest step whose files are what was written.

        A step that fails the comparison is logged with what is wrong, and the one before is tried.

        Args:
            abstract_state: pytree of `jax.ShapeDtypeStruct` with the shardings to restore onto,
                which need not be those of the save.
            abstract_cursor: anything with the cursor's `shape` and `dtype`.

        Returns:
            The step, the state and the cursor.

        Raises:
            UserError: where no step passes, or its arrays are not those of `abstract_state`.
        """
        self.wait()
        step = _from_process_0(self._newest_intact() if jax.process_index() == 0 else None)
        if step is None:
            raise UserError(
                f"{self._directory} holds no intact checkpoint; the log names the faults"
            )
        self._rejected |= {later for later in self._committed() if later > step}
        folder = self._directory / str(step)
        cursor = np.zeros(abstract_cursor.shape, abstract_cursor.dtype)
        wanted = {"state": abstract_state, "cursor": cursor}
        stored = self._read_list(step)["arrays"]
        check_signatures(f"checkpoint {folder}", stored, signatures(wanted))
        found = from_saved(ocp.load(str(folder), to_saved(wanted)), wanted)
        return step, found["state"], np.asarray(found["cursor"])

    def _finish(self, step: int, response: ocp.AsyncResponse[None], arrays: dict) -> None:
        try:
            response.result()
            if jax.process_index() == 0:
                files = hash_files(self._directory / str(step))
                values = {"step": step, "arrays": arrays, "files": files}
                write_json(self._list_path(step), values)
                for old in self._listed()[: -self._keep]:
                    self._remove(old)
        except Exception as error:  # of the thread: handed to the caller by wait()
            self._failure = (step, error)

    def _list_path(self, step: int) -> Path:
        return self._directory / "sha256" / f"{step}.json"

    def _read_list(self, step: int) -> dict[str, Any]:
        return read_json(self._list_path(step), "a checkpoint's list", ("arrays", "files"))

    def _committed(self) -> list[int]:
        if not self._directory.is_dir():
            return []
        folders = (p.name for p in self._directory.iterdir() if p.is_dir())
        return sorted(int(name) for name in folders if _STEP.fullmatch(name))

    def _listed(self) -> list[int]:
        return [step for step in self._committed() if self._list_path(step).exists()]

    def _newest_intact(self) -> int | None:
        for step in reversed(self._committed()):
            faults = self._faults(step)
            if not faults:
                return step
            log.warning(
                "checkpoint step %d is rejected, trying the one before: %s", step, "; ".join(faults)
            )
        return None

    def _faults(self, step: int) -> list[str]:
        """What differs between a step's files and its list, one phrase each."""
        if not self._list_path(step).exists():
            return ["it has no SHA-256 list: the run was killed while saving"]
        try:
            listed = self._read_list(step)["files"]
        except UserError as error:
            return [str(error)]
        found = hash_files(self._directory / str(step))
        faults = [f"{name} is missing" for name in sorted(listed.keys() - found.keys())]
        faults += [f"{name} was added" for name in sorted(found.keys() - listed.keys())]
        for name in sorted(found.keys() & listed.keys()):
            if found[name]["size"] != listed[name]["size"]:
                faults.append(
                    f"{name} has {found[name]['size']} bytes instead of {listed[name]['size']}"
                )
            elif found[name] != listed[name]:
                faults.append(f"{name} has other content (SHA-256 differs)")
        return faults

    def _remove_untrusted(self) -> None:
        """Removes what a kill or damage left: unlisted and rejected steps, half-written folders."""
        for step in self._committed():
            if step in self._rejected or not self._list_path(step).exists():
                log.warning("checkpoint step %d is not intact and is removed", step)
                self._remove(step)
        for folder in self._directory.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(folder)

    def _remove(self, step: int) -> None:
        # The list goes first: a kill between the two leaves a step that does not count.
        self._list_path(step).unlink(missing_ok=True)
        shutil.rmtree(self._directory / str(step))


# ---------------------------------------------------------------------------- processes


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _from_process_0(step: int | None) -> int | None:
    """Process 0 verifies, the others follow: no two processes restore different steps."""
    if jax.process_count() == 1:
        return step
    agreed = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if step is None else step)))
    return None if agreed < 0 else agreed


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
