"""A run of several processes: where this one stands, and what all of them agree on.

Every process does the same things in the same order, reads its own lanes of the data, and process 0
alone writes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from multimed_jax.command import EXIT_PREEMPTED
from multimed_jax.config import RunConfig
from multimed_jax.config_io import to_json
from multimed_jax.environment import job_place
from multimed_jax.meeting import Place, differences, meet
from multimed_jax.peers import Peers
from multimed_jax.preemption import Preempted, StopRequest
from multimed_jax.sharding import batch_sharding, replicated
from multimed_jax.types import UserError
from multimed_jax.versions import code_facts

_SHUTDOWN_S = 60


class Job:
    """This process's part in a job."""

    def __init__(self, place: Place, peers: Peers, folder: Path, stop: StopRequest):
        self._place, self._peers, self._stop = place, peers, stop
        self._path = folder / "heartbeats" / f"process-{place.index}.json"
        self._moved, self._told = 0, -1

    def agree(self, flag: bool) -> bool:
        """Whether the flag is up on any process; every process asks at the same place."""
        self._moved += 1
        return any_process(flag)

    def beat(self) -> None:
        """Writes the heartbeat file, but only where the run has moved since."""
        if self._moved == self._told:
            return
        self._told = self._moved
        values = {
            "process": self._place.index,
            "processes": self._place.count,
            "step": self._stop.step,
            "time": time.time(),
        }
        with contextlib.suppress(OSError):  # a full disk ends the run where it writes what counts
            self._path.parent.mkdir(exist_ok=True)  # not the run folder, which is made elsewhere
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(json.dumps(values) + "\n", encoding="utf-8")
            os.replace(temporary, self._path)


def run_in_job(
    body: Callable[[], int],
    facts: Callable[[], Mapping[str, str]],
    folder: Path,
    stop: StopRequest,
) -> int:
    """Runs a command as the environment says: by itself, or as one process of a job.

    Args:
        body: returns an exit code.
        facts: () -> what must be equal on all processes, by what it is called in a sentence.
        folder: of the run, for the heartbeat files.
        stop: whether a signal has come; inside `body` it answers for all processes.

    Returns:
        The exit code of the job: the worst of all processes, 75 where all were stopped.

    Raises:
        UserError: where the processes do not meet, or differ.
    """
    place = job_place(os.environ)
    try:
        with join_job(place, facts() if place else {}, folder, stop) as leave:
            try:
                code = body()
            except Preempted:
                code = EXIT_PREEMPTED
            return leave(code)
    except Preempted:
        return EXIT_PREEMPTED


def run_facts(config: RunConfig) -> dict[str, str]:
    """What the processes of a training run must have in common; where the data lie may differ."""
    values = to_json(config)
    values.pop("data_dir")
    return code_facts() | dict(_leaves(values, "config"))


@contextlib.contextmanager
def join_job(
    place: Place | None, facts: Mapping[str, str], folder: Path, stop: StopRequest
) -> Iterator[Callable[[int], int]]:
    """Meets the other processes, watches them, and ends with them.

    Inside, JAX sees the devices of all processes, and `stop` answers for all. What is raised inside
    ends all processes; each says why in one sentence.

    Args:
        place: of this process; None leaves it by itself.
        facts: what must be equal on all processes, by what it is called in a sentence.
        folder: of the run, for the heartbeat files.
        stop: whether a signal has come.

    Yields:
        Takes the exit code of this process, and returns that of the job.

    Raises:
        UserError: where the processes do not meet, or differ.
        Preempted: where a signal comes before they have met.
    """
    if place is None:
        yield _alone
        return
    peers = Peers(place, {})
    coordinator = ""
    if place.count > 1:
        met = meet(place, facts, lambda: stop.came_here)
        if met is None:
            raise Preempted
        peers, coordinator = Peers(place, met.connections), met.coordinator
    if place.index > 0:
        logging.getLogger().setLevel(logging.WARNING)  # process 0 tells what all do
    job = Job(place, peers, folder, stop)
    peers.watch(job.beat)
    try:
        if coordinator:
            _initialize(place, coordinator)
        stop.agree_by(job.agree)
        yield lambda code: _finish(peers, code)
    except UserError as error:
        peers.fail(str(error))
    except jax.errors.JaxRuntimeError as error:
        # Mostly a line of a collective that has broken: the watching thread knows whose, or will.
        if place.count > 1 and "RESOURCE_EXHAUSTED" not in str(error):
            time.sleep(place.silence_s)
        traceback.print_exc()
        peers.fail(f"{type(error).__name__}: {str(error)[:300]}")
    except Exception as error:
        traceback.print_exc()
        peers.fail(f"{type(error).__name__}: {str(error)[:300]}")


def any_process(flag: bool) -> bool:
    """Whether the flag is up on any process. Every process calls it at the same place."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.int32(flag)).any())


def from_first(value: int) -> int:
    """The value that process 0 gives. Every process calls it at the same place."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def sum_processes(values: np.ndarray) -> np.ndarray:
    """The sum over processes of an array of float32. Every process calls it at the same place."""
    if jax.process_count() == 1:
        return values
    return multihost_utils.process_allgather(values.astype(np.float32)).sum(axis=0)


def agree_on(facts: Mapping[str, str]) -> None:
    """Raises UserError on every process where one differs from process 0, naming it and in what.

    Every process calls it at the same place.
    """
    if jax.process_count() == 1:
        return
    text = np.frombuffer(json.dumps(dict(facts)).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(text.size))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: text.size] = text
    rows = multihost_utils.process_allgather(padded)
    stated = [json.loads(row[:n].tobytes()) for row, n in zip(rows, lengths, strict=True)]
    for process, other in enumerate(stated):
        differing = differences(stated[0], other)
        if differing:
            raise UserError(
                f"process {process} of {len(stated)} differs from process 0: {differing}"
            )


def local_lanes(mesh: Mesh, lanes: int) -> range:
    """The lanes whose packs lie on devices of this process.

    Raises:
        UserError: where they are no regular range, so that no process could plan its own.
    """
    places = batch_sharding(mesh).addressable_devices_indices_map((lanes,)).values()
    cuts = [cut[0] for cut in places if cut is not None]
    found = sorted({lane for cut in cuts for lane in range(*cut.indices(lanes))})
    step = found[1] - found[0] if len(found) > 1 else 1
    mine = range(found[0], found[-1] + 1, step)
    if list(mine) != found:
        raise UserError(
            f"config.mesh gives process {jax.process_index()} the lanes {found}; accepted: meshes "
            "that give every process a regular range of lanes"
        )
    return mine


def whole(tree: Any, mesh: Mesh) -> Any:
    """Host copies of the device arrays of a pytree, with the parts of all processes."""
    if jax.process_count() > 1:
        tree = jax.jit(_same, out_shardings=replicated(mesh))(tree)
    return jax.device_get(tree)


# ------------------------------------------------------------------------------- internals


def _alone(code: int) -> int:
    return code


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """("config.model.d_model", "96"), ..."""
    if isinstance(value, Mapping) and value:
        for key in value:
            yield from _leaves(value[key], f"{name}.{key}")
    elif isinstance(value, (list, tuple)) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name}[{index}]")
    else:
        yield name, str(value)


def _same(tree: Any) -> Any:  # of the module: what is compiled for it is found again
    return tree


def _initialize(place: Place, coordinator: str) -> None:
    # Its signal handler would take SIGTERM from the run's own, which all processes agree on.
    jax.config.update("jax_enable_preemption_service", False)
    logging.getLogger("jax._src.distributed").setLevel(logging.WARNING)
    jax.distributed.initialize(
        coordinator,
        place.count,
        place.index,
        cluster_detection_method="deactivate",
        initialization_timeout=int(place.start_timeout_s),
        # The line between the processes speaks first: it knows the name of the lost one.
        heartbeat_timeout_seconds=int(3 * place.silence_s) + 30,
        shutdown_timeout_seconds=_SHUTDOWN_S,
    )
    held = [0] * place.count
    for device in jax.devices():
        held[device.process_index] += 1
    for process, number in enumerate(held):
        if number != held[0]:
            raise UserError(
                f"{place.name(process)} has {number} devices, process 0 has {held[0]}; every "
                "process needs the same number"
            )


def _finish(peers: Peers, code: int) -> int:
    agreed = peers.finish(code, lambda code: code not in (0, EXIT_PREEMPTED))
    jax.distributed.shutdown()
    return agreed
