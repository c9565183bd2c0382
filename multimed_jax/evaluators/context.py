"""What an evaluator is given: the run, the predictions of its model, the records behind them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num, UInt64

from multimed_jax.config import RunConfig
from multimed_jax.types import Namespace, SourceInfo, TaskSpec


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The model's predictions for one (source, task) on one split, every record exactly once.

    Attributes:
        probabilities: class probabilities cut to the namespace (or values in target units).
        targets: class index inside the namespace (or values in target units).
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
    """

    config: RunConfig
    step: int
    config_hash: str
    workdir: Path
    predict: Callable[[str, frozenset[str] | None], Sequence[Predictions]]
    open_source: Callable[[str, str], Any]
