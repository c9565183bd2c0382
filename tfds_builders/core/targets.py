"""The kinds of targets that records carry: how each is stored, checked and counted.

kind          targets/<task>                       class_names               not known
"class"       int32, index of a class              the classes               -1
"labels"      int32 [F], 1 has it, 0 has it not    the F labels              -1 in its place
"values"      float32 [F]                          the F columns             NaN in its place
"coordinates" float32 [L, 3, 3], N, CA and C of    ()                        NaN where unresolved
              each residue in angstrom
"answer"      nothing: the record's own key        ()                        "" as `text`
              `answer` {text, candidates} has it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds

TargetKind = Literal["class", "labels", "values", "coordinates", "answer"]
Kinds = Mapping[str, TargetKind]
ClassNames = Mapping[str, tuple[str, ...]]


def target_features(class_names: ClassNames, kinds: Kinds) -> dict[str, Any]:
    """The tfds features below `targets`."""
    made: dict[str, Any] = {}
    for task, names in class_names.items():
        kind = kind_of(task, kinds)
        if kind == "class":
            made[task] = tfds.features.Scalar(np.int32)
        elif kind == "labels":
            made[task] = tfds.features.Tensor(shape=(len(names),), dtype=np.int32)
        elif kind == "values":
            made[task] = tfds.features.Tensor(shape=(len(names),), dtype=np.float32)
        elif kind == "coordinates":
            made[task] = tfds.features.Tensor(
                shape=(None, 3, 3), dtype=np.float32, encoding="bytes"
            )
    return made


def kind_of(task: str, kinds: Kinds) -> TargetKind:
    """The kind of a task's target; "class" where the builder names none."""
    return kinds[task] if task in kinds else "class"


def missing_target(kind: TargetKind, names: tuple[str, ...]) -> Any:
    """What a record stores that does not have the target."""
    if kind == "class":
        return -1
    if kind == "labels":
        return np.full(len(names), -1, np.int32)
    if kind == "values":
        return np.full(len(names), np.nan, np.float32)
    return np.zeros((0, 3, 3), np.float32)


def check_target(value: Any, kind: TargetKind, names: tuple[str, ...], where: str) -> None:
    """Raises ValueError for a target that does not have the form of its kind."""
    if kind == "class":
        if not -1 <= int(value) < len(names):
            raise ValueError(f"{where} has class {value}; accepted: -1 to {len(names) - 1}")
        return
    array = np.asarray(value)
    if kind == "labels":
        if array.shape != (len(names),) or not np.isin(array, (-1, 0, 1)).all():
            raise ValueError(
                f"{where} has labels {array.tolist()}; accepted: {len(names)} of -1, 0, 1"
            )
    elif kind == "values":
        if array.shape != (len(names),) or np.isinf(array).any():
            raise ValueError(
                f"{where} has values {array.tolist()}; accepted: {len(names)} numbers or NaN"
            )
    elif array.ndim != 3 or array.shape[1:] != (3, 3) or np.isinf(array).any():
        raise ValueError(f"{where} has coordinates of shape {array.shape}; accepted: [L, 3, 3]")


class TargetCounts:
    """Counts of one task in one split, collected while records are written."""

    def __init__(self, kind: TargetKind, names: tuple[str, ...]) -> None:
        self._kind = kind
        self.class_counts = [0] * len(names)
        self._sums = np.zeros((3, len(names)))

    def add(self, value: Any) -> None:
        """Counts one target."""
        if self._kind == "class":
            if int(value) >= 0:
                self.class_counts[int(value)] += 1
        elif self._kind in ("labels", "values"):
            array = np.asarray(value, np.float64)
            known = array >= 0 if self._kind == "labels" else np.isfinite(array)
            array = np.where(known, array, 0.0)
            self._sums += np.stack([known, array, array**2])
            if self._kind == "labels":
                for i in np.flatnonzero(array):
                    self.class_counts[i] += 1

    def state(self) -> list[list[float]]:
        """All counts and sums; `include` takes them."""
        return [list(map(float, self.class_counts)), *self._sums.tolist()]

    def include(self, state: list[list[float]]) -> None:
        """Counts what another object did."""
        self.class_counts = [int(a + b) for a, b in zip(self.class_counts, state[0], strict=True)]
        self._sums += np.asarray(state[1:], np.float64)

    def stats(self) -> dict[str, list[float]]:
        """Known targets, their sum and sum of squares by column; empty for classes."""
        if self._kind not in ("labels", "values"):
            return {}
        names = ("count", "sum", "sum_squares")
        return {name: row.tolist() for name, row in zip(names, self._sums, strict=True)}
