"""What an evaluator is given: the run, the predictions of its model, the records behind them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Num, UInt64

from multimed_jax.config import RunConfig
from multimed_jax.specs import Namespace, SourceInfo, TaskSpec

# What the predictions of a task are: probabilities of classes, probabilities of labels, values in
# target units, or anything else (coordinates, pieces of an answer).
Kind = Literal["classes", "labels", "values", "other"]


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The model's predictions for one (source, task) on one split, every record exactly once.

    Attributes:
        probabilities: of classes or labels, cut to the namespace; or values in target units.
        targets: class index inside the namespace; or labels, or values in target units; -1 or NaN
            where not known.
        rows: row of each record in its source, ascending.
        groups: hash of each record's group_id.
    """

    source: SourceInfo
    task: TaskSpec
    namespace: Namespace
    probabilities: Float[np.ndarray, "n *out"]
    targets: Num[np.ndarray, "n *target_shape"]
    rows: Int[np.ndarray, "n"]  # noqa: F821
    groups: UInt64[np.ndarray, "n"]  # noqa: F821

    @property
    def kind(self) -> Kind:
        """What was predicted, as the task's target and the namespace's names tell."""
        if not self.namespace.class_names or len(self.task.target_shape) > 1:
            return "other"
        whole = np.issubdtype(np.dtype(self.task.target_dtype), np.integer)
        if not self.task.target_shape:
            return "classes" if whole else "other"
        return "labels" if whole else "values"


@dataclasses.dataclass(frozen=True)
class EvalContext:
    """A trained model, ready to be measured.

    Attributes:
        config: of the run.
        step: training steps behind the parameters.
        config_hash: of the run.
        workdir: the run folder; evaluators write below `workdir / "eval"`.
        predict: (split, keep) -> predictions of every (source, task). `keep` hides every modality
            not named; records that keep none are left out. Cached.
        open_source: (source name, split) -> random-access records (`len`, `[row]`).
        embed: split -> the same with unit vectors of the aligned space in place of probabilities;
            None where the run has no aligned space.
        embed_texts: texts -> unit vectors of the aligned space, [n, E]; None likewise.
    """

    config: RunConfig
    step: int
    config_hash: str
    workdir: Path
    predict: Callable[[str, frozenset[str] | None], Sequence[Predictions]]
    open_source: Callable[[str, str], Any]
    embed: Callable[[str], Sequence[Predictions]] | None = None
    embed_texts: Callable[[Sequence[str]], Float[np.ndarray, "n E"]] | None = None
