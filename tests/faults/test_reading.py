"""Faults 14 and 18: threads change nothing, and one that hangs or dies is said by its record."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from multimed_jax.data import readers
from multimed_jax.data.loader import TrainLoader
from multimed_jax.data.packing import Layout, make_layout
from multimed_jax.data.readers import Readers
from multimed_jax.data.sample_log import SampleLog, read_samples
from multimed_jax.data.windows import TrainWindows
from multimed_jax.types import UserError
from tests.data.fakes import FakeSource, Setup, make_setup, toy_sources

STEPS = 12


@pytest.fixture(scope="module")
def setup(tmp_path_factory) -> Setup:
    sources = toy_sources()
    return make_setup(sources, tmp_path_factory.mktemp("sizes"), modality_dropout=0.3)


@pytest.fixture(scope="module")
def layout(setup) -> Layout:
    return make_layout(setup.config, setup.sources, setup.sizes)


def loader(setup: Setup, layout: Layout, cursor=None, lanes=None, **data) -> TrainLoader:
    config = dataclasses.replace(setup.config, data=dataclasses.replace(setup.config.data, **data))
    return TrainLoader(config, layout, setup.sources, setup.sizes, setup.namespaces, cursor, lanes)


def log_of(setup: Setup, workdir: Path) -> SampleLog:
    return SampleLog(workdir, 0, [s.info.name for s in setup.sources], range(4))


# --------------------------------------------------------------------------- 14, sample ids


@pytest.mark.parametrize(("threads", "prefetch"), [(0, 0), (1, 1), (2, 2), (4, 3)])
def test_fault_14_any_number_of_workers_gives_the_same_sample_ids(
    setup, layout, tmp_path, threads, prefetch
):
    """The log of 12 steps is the planned order, written down apart from loader and log."""
    log = log_of(setup, tmp_path)
    batches = loader(setup, layout, threads=threads, prefetch=prefetch)
    for step, batch in enumerate(itertools.islice(batches, STEPS), 1):
        log.write(step, batch)
    batches.close()
    log.close()
    windows = TrainWindows(setup.config, layout, setup.sizes)
    names = [s.info.name for s in setup.sources]
    wanted = []
    for lane in range(4):
        packs = [pack for w in range(lane, 40, 4) for pack in windows.plan(w)]
        for step, pack in enumerate(packs[:STEPS], 1):
            for number, name in enumerate(names):
                rows = [int(r) for s, r in zip(*_columns(pack), strict=True) if s == number]
                if rows:
                    wanted.append({"step": step, "lane": lane, "source": name, "rows": rows})
    key = ("step", "lane", "source")
    assert read_samples(tmp_path) == sorted(wanted, key=lambda line: [line[k] for k in key])


def _columns(pack):
    return pack.samples.source.tolist(), pack.samples.row.tolist()


def test_a_stretch_that_is_run_again_replaces_its_lines(setup, layout, tmp_path):
    log = log_of(setup, tmp_path)
    taken = list(itertools.islice(loader(setup, layout), 6))
    for step, batch in enumerate(taken, 1):
        log.write(step, batch)
    log.close()
    whole = read_samples(tmp_path)
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"step": 7, "la')  # cut short by a kill
    again = SampleLog(tmp_path, 2, [s.info.name for s in setup.sources], range(4))
    kept = read_samples(tmp_path)
    assert {line["step"] for line in kept} == {1, 2}
    for step, batch in enumerate(taken[2:], 3):
        again.write(step, batch)
    again.close()
    assert read_samples(tmp_path) == whole


def test_processes_log_their_lanes_and_leave_nothing_stale(setup, layout, tmp_path):
    """Two processes for three steps, then one process that goes on from step 2."""
    names = [s.info.name for s in setup.sources]
    parts = [range(0, 2), range(2, 4)]
    for process, lanes in enumerate(parts):
        log = SampleLog(tmp_path, 0, names, lanes, process, 2)
        batches = loader(setup, layout, lanes=lanes)
        for step, batch in enumerate(itertools.islice(batches, 3), 1):
            log.write(step, batch)
        log.close()
    whole = tmp_path / "whole"
    whole.mkdir()
    log, again = log_of(setup, whole), SampleLog(tmp_path, 2, names, range(4))
    for step, batch in enumerate(itertools.islice(loader(setup, layout), 5), 1):
        log.write(step, batch)
        if step > 2:
            again.write(step, batch)
    log.close()
    again.close()
    assert read_samples(tmp_path) == read_samples(whole)
    assert len((tmp_path / "samples-1.jsonl").read_text().splitlines()) > 0


def test_no_log_is_an_error(tmp_path):
    with pytest.raises(UserError, match="log_samples=True"):
        read_samples(tmp_path)


def test_halves_of_a_sample_are_one_record(tmp_path):
    batch = dataclasses.replace(
        next(iter(_one_batch(tmp_path))),
        record=np.array([[[0, 5], [0, 6], [0, 5], [-1, -1]]], np.int32),
        partner=np.array([[3, 0, 1, 0]], np.int32),
    )
    log = SampleLog(tmp_path, 0, ["one"], range(1))
    log.write(1, batch)
    log.close()
    (line,) = read_samples(tmp_path)
    assert line == {"step": 1, "lane": 0, "source": "one", "rows": [5, 6]}


def _one_batch(tmp_path):
    setup = make_setup([FakeSource("one", {"a": [3] * 20})], tmp_path, lanes=1)
    return loader(setup, make_layout(setup.config, setup.sources, setup.sizes))


# ---------------------------------------------------------------------------- 18, a bad thread


class Sick(FakeSource):
    """Reads as it should, except row 11 once `fault` is set."""

    fault = None

    def __getitem__(self, row, /):
        if self.fault is not None and row == 11:
            self.fault()
        return super().__getitem__(row)


def sick_loader(tmp_path, fault, **data) -> TrainLoader:
    source = Sick("one", {"a": [3] * 20})
    setup = make_setup([source], tmp_path)
    layout = make_layout(setup.config, setup.sources, setup.sizes)
    source.fault = fault
    return loader(setup, layout, **data)


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 2), (4, 2), (2, 0)])
def test_fault_18_a_read_that_hangs_is_named(tmp_path, threads, prefetch):
    release = threading.Event()
    batches = sick_loader(
        tmp_path, release.wait, threads=threads, prefetch=prefetch, read_timeout_s=0.6
    )
    begin = time.monotonic()
    with pytest.raises(UserError) as caught:
        for _ in range(20):
            next(batches)
    took = time.monotonic() - begin
    assert "record 11 of 'one' split 'train'" in str(caught.value)
    assert "read_timeout_s is 0.6" in str(caught.value)
    assert "in wait, threading.py:" in str(caught.value)  # where the thread hangs
    begin = time.monotonic()
    batches.close()
    assert time.monotonic() - begin < 5 and took < 10
    release.set()


def test_closing_does_not_wait_for_a_read_that_hangs(tmp_path):
    release = threading.Event()
    batches = sick_loader(tmp_path, release.wait, threads=2, read_timeout_s=60.0)
    batches._batches.start_prefetch()  # pyright: ignore[reportAttributeAccessIssue]
    time.sleep(0.3)
    begin = time.monotonic()
    batches.close()
    assert time.monotonic() - begin < 5
    release.set()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda: sys.exit(3), r"record 11 of 'one'.*SystemExit"),
        (lambda: (_ for _ in ()).throw(ValueError("broken")), "broken"),
        # An error of the read that looks like the watchdog's own clock.
        (lambda: (_ for _ in ()).throw(TimeoutError("mount is dead")), "mount is dead"),
    ],
)
def test_fault_18_a_thread_that_dies_ends_the_stream(tmp_path, fault, said):
    batches = sick_loader(tmp_path, fault, threads=2)
    with pytest.raises(Exception, match=said) as caught:
        for _ in range(20):
            next(batches)
    batches.close()
    told = str(caught.value) + " ".join(getattr(caught.value, "__notes__", []))
    assert "record 11 of 'one'" in told


class Echo:
    def __call__(self, job, /):
        return job()

    def name(self, job, /):
        return "a job"


def test_a_process_that_stood_still_accuses_nobody(monkeypatch):
    """The clock jumps by an hour, as after a suspension; the job ends right afterwards."""
    jumped = [0.0]
    clock = time.monotonic

    class Clock:
        monotonic = staticmethod(lambda: clock() + jumped[0])

    monkeypatch.setattr(readers, "time", Clock)
    pool = Readers(1, 1.0)

    def job():
        time.sleep(0.4)
        jumped[0] = 3600.0
        time.sleep(0.4)
        return "done"

    assert list(pool.map(Echo(), [job])) == ["done"]
    pool.close()


def test_a_slow_queue_is_no_slow_job():
    """Eight jobs of 0.2 s on one thread pass a limit of 1 s each."""
    pool = Readers(1, 1.0)
    jobs = [lambda n=n: time.sleep(0.2) or n for n in range(8)]
    assert list(pool.map(Echo(), jobs)) == list(range(8))
    pool.close()


def test_time_limit_and_threads_have_bounds(setup):
    for changes in (
        {"read_timeout_s": 0.0},
        {"read_timeout_s": float("nan")},
        {"decoded_cache_gib": 0.0},
        {"decoded_cache_gib": float("nan")},
        {"threads": -1},
        {"prefetch": -1},
    ):
        with pytest.raises(UserError, match=f"{next(iter(changes))} "):
            dataclasses.replace(setup.config.data, **changes)


def test_lines_are_json_of_one_object_each(setup, layout, tmp_path):
    log = log_of(setup, tmp_path)
    log.write(3, next(loader(setup, layout)))
    log.close()
    for line in (tmp_path / "samples.jsonl").read_text().splitlines():
        assert set(json.loads(line)) == {"step", "lane", "source", "rows"}
