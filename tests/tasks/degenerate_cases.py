"""Slots that training may show a head: empty, unknown, extreme, constant, almost unresolved."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import multimed_jax.modalities
from multimed_jax.data.layout import target_shape
from multimed_jax.specs import Namespace, StreamSpec, TaskSpec, read_stream
from multimed_jax.types import SegmentParts, TargetSlots
from tests.option_variants import smaller, specs_of

D_MODEL, SLOTS, PARTS = 8, 3, 6
# A column that varies, one that no training record knows, one that is constant.
SPACES = (
    Namespace(
        "a",
        ("x", "y", "z"),
        (5, 0, 1),
        {"count": (4.0, 0.0, 2.0), "sum": (2.0, 0.0, 2.0), "sum_squares": (2.0, 0.0, 2.0)},
    ),
    Namespace(
        "b",
        ("u", "v"),
        (0, 0),
        {"count": (0.0, 3.0), "sum": (0.0, 0.0), "sum_squares": (0.0, 0.0)},
    ),
)
STREAMS = [
    dataclasses.replace(stream, max_parts=PARTS)
    for modality in specs_of(multimed_jax.modalities).values()
    for stream in smaller(modality, max_answer=PARTS).streams
]


@dataclasses.dataclass(frozen=True)
class Case:
    """What a head sees: states, the parts that it reads, and its slots."""

    states: np.ndarray
    read: SegmentParts | None
    slots: TargetSlots


def unknown(task: TaskSpec) -> Any:
    return -1 if task.target_dtype == "int32" else np.nan


def usual(task: TaskSpec, seed: int = 0) -> Case:
    """Used slots of both namespaces, everything known, every part there."""
    rng = np.random.default_rng(seed)
    shape = (1, SLOTS, *target_shape(task, SPACES, STREAMS))
    if task.target_dtype == "int32":
        value = rng.integers(0, 2, shape).astype(np.int32)
    else:
        value = (5 * rng.normal(size=shape)).astype(np.float32)
    slots = TargetSlots(
        segment=np.arange(1, SLOTS + 1, dtype=np.int32)[None],
        value=value,
        weight=np.ones((1, SLOTS), np.float32),
        namespace=np.arange(SLOTS, dtype=np.int32)[None] % len(SPACES),
        modality_share=np.full((1, SLOTS, 2), 0.5, np.float32),
    )
    states = rng.normal(size=(1, SLOTS, D_MODEL)).astype(np.float32)
    read = usual_parts(read_stream(task, STREAMS)) if task.reads else None
    return Case(states, read, slots)


def usual_parts(stream: StreamSpec) -> SegmentParts:
    rng = np.random.default_rng(1)
    lead = (1, SLOTS, PARTS)
    coords = np.broadcast_to(np.arange(PARTS, dtype=np.float32)[:, None], (*lead, stream.num_axes))
    return SegmentParts(
        states=rng.normal(size=(*lead, D_MODEL)).astype(np.float32),
        parts=np.zeros((*lead, *stream.patch_shape), stream.dtype),
        coords=np.array(coords),
        mask=np.ones(lead, bool),
    )


# --------------------------------------------------------------------------------- cases


def with_value(case: Case, value: np.ndarray) -> Case:
    return dataclasses.replace(case, slots=dataclasses.replace(case.slots, value=value))


def with_parts(case: Case, number: int) -> Case:
    """Only the first parts are there; what stands behind them is 0, as the model writes it."""
    if case.read is None:
        return case
    mask = np.arange(PARTS) < number

    def kept(x: Any) -> np.ndarray:
        there = mask.reshape(1, 1, PARTS, *[1] * (x.ndim - 3))
        return np.where(there, x, 0).astype(x.dtype)

    return dataclasses.replace(case, read=jax.tree.map(kept, case.read))


def with_states(case: Case, change: Callable[[Any], np.ndarray]) -> Case:
    read = case.read
    if read is not None:
        read = dataclasses.replace(read, states=change(read.states))
    return Case(change(case.states), read, case.slots)


def known_rows(task: TaskSpec, rows: Sequence[int]) -> Case:
    """Only some rows of every target are known: columns, residues, or the truth of a question."""
    case = usual(task)
    value = np.full_like(case.slots.value, unknown(task))
    if value.ndim == 2:
        return case
    kept = [row for row in rows if row < value.shape[2]]
    value[:, :, kept] = case.slots.value[:, :, kept]
    return with_value(case, value)


def empty(task: TaskSpec) -> Case:
    """A pack without the task: every slot is as `empty_batch` makes it."""
    case = with_states(with_parts(usual(task), 0), np.zeros_like)
    return dataclasses.replace(case, slots=jax.tree.map(np.zeros_like, case.slots))


def half_empty(task: TaskSpec) -> Case:
    """The last slot is empty, the others are used."""
    case, nothing = usual(task), empty(task)
    last = np.arange(SLOTS) == SLOTS - 1

    def mixed(x: Any, y: Any) -> np.ndarray:
        return np.where(last.reshape(1, SLOTS, *[1] * (x.ndim - 2)), y, x)

    read = None if case.read is None else jax.tree.map(mixed, case.read, nothing.read)
    slots = jax.tree.map(mixed, case.slots, nothing.slots)
    return Case(mixed(case.states, nothing.states), read, slots)


def all_unknown(task: TaskSpec) -> Case:
    case = usual(task)
    return with_value(case, np.full_like(case.slots.value, unknown(task)))


def scaled(factor: float) -> Callable[[TaskSpec], Case]:
    return lambda task: with_states(usual(task), lambda x: (factor * x).astype(x.dtype))


def constant_targets(size: float) -> Callable[[TaskSpec], Case]:
    """All atoms at one point, all columns alike; classes stay what they are."""

    def make(task: TaskSpec) -> Case:
        case = usual(task)
        floats = task.target_dtype == "float32"
        return with_value(
            case, np.full_like(case.slots.value, size) if floats else case.slots.value
        )

    return make


CASES: dict[str, Callable[[TaskSpec], Case]] = {
    "usual": usual,
    "empty": empty,
    "half empty": half_empty,
    "all unknown": all_unknown,
    "states of 1e4": scaled(1e4),
    "states of 1e-20": scaled(1e-20),
    "states of zero": scaled(0.0),
    "constant states": lambda task: with_states(usual(task), np.ones_like),
    "constant states of 1e4": lambda task: with_states(
        usual(task), lambda x: np.full_like(x, -1e4)
    ),
    "targets of zero": constant_targets(0.0),
    "targets of 1e4": constant_targets(1e4),
    "three rows known": lambda task: known_rows(task, (0, 2, 4)),
    "one row known": lambda task: known_rows(task, (0,)),
    "one part": lambda task: with_parts(usual(task), 1),
    "two parts": lambda task: with_parts(usual(task), 2),
    "no part": lambda task: with_parts(usual(task), 0),
}
