"""One prediction and its truth in words, for sample sheets and CSV files, whatever the task."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from multimed_jax.evaluators.context import Kind, Predictions
from multimed_jax.metrics.multilabel import THRESHOLD
from multimed_jax.metrics.text import exact_match

# A sheet shows the first so many of many columns.
_MAX_SHOWN = 6


def can_be_said(predictions: Predictions) -> bool:
    """Whether predictions are something to read: arrays of coordinates are not."""
    if predictions.kind != "other" or predictions.task.describe is not None:
        return True
    return predictions.probabilities.dtype.kind in "iu"


@dataclasses.dataclass(frozen=True)
class Words:
    """A prediction and its truth; `right` is None where there is no right and wrong."""

    prediction: str
    truth: str
    right: bool | None


def in_words(predictions: Predictions, index: int) -> Words:
    """The index-th prediction as a person would say it; empty texts where it cannot be said."""
    names, kind = predictions.namespace.class_names, predictions.kind
    said, truth = predictions.probabilities[index], predictions.targets[index]
    if predictions.task.describe is not None:
        return _described(predictions, said, truth)
    if not can_be_said(predictions):
        return Words("", "", None)
    told = spoken(kind, names, truth)
    right = None
    if kind == "classes":
        right = bool(said.argmax() == truth)
    elif kind == "labels":
        known = truth >= 0
        right = bool(np.array_equal((said >= THRESHOLD)[known], truth[known] == 1))
        if not known.all():
            told += f" ({np.count_nonzero(~known)} not known)"
    return Words(spoken(kind, names, said), told, right)


def for_file(predictions: Predictions, index: int) -> tuple[str, str, str]:
    """Prediction, its probability ("" but for classes) and truth for a line of a CSV file."""
    names, kind = predictions.namespace.class_names, predictions.kind
    said, truth = predictions.probabilities[index], predictions.targets[index]
    if kind == "classes":
        best = int(said.argmax())
        return names[best], f"{said[best]:.6f}", names[int(truth)]
    if predictions.task.describe is not None:
        words = _described(predictions, said, truth)
        return words.prediction, "", words.truth
    return written(kind, names, said), "", written(kind, names, truth)


def _described(predictions: Predictions, said: np.ndarray, truth: np.ndarray) -> Words:
    """In the words of the task itself."""
    task, space = predictions.task, predictions.namespace
    assert task.describe is not None
    # Of a generated answer the target holds the truth and then the candidates.
    texts = task.describe(said, space), task.describe(truth[0] if task.generates else truth, space)
    return Words(*texts, bool(exact_match(*texts)) if task.generates else None)


def spoken(kind: Kind, names: Sequence[str], value: np.ndarray) -> str:
    """A prediction or truth as a person would say it.

    Labels are those that hold (probability or truth at least one half), values carry their column
    as a unit; a single column is a number and its unit. Numbers without names are piece ids, whose
    padding of -1 is left out.
    """
    if kind == "classes":
        return names[int(value if np.ndim(value) == 0 else value.argmax())]
    if kind == "labels":
        return ", ".join(n for n, v in zip(names, value, strict=True) if v >= THRESHOLD) or "none"
    if kind == "values":
        if len(names) == 1:
            return f"{_number(value[0])} {names[0]}"
        shown = [f"{n} {_number(v)}" for n, v in zip(names, value, strict=True)][:_MAX_SHOWN]
        more = [f"and {len(names) - _MAX_SHOWN} more"] if len(names) > _MAX_SHOWN else []
        return ", ".join([*shown, *more])
    return _ids(value)


def written(kind: Kind, names: Sequence[str], value: np.ndarray, digits: int = 6) -> str:
    """A prediction or truth for a file: "name=value;...", without what is not known."""
    if kind == "other":
        return _ids(value)
    exact = value.dtype.kind in "iu"
    is_known = value >= 0 if exact else np.isfinite(value)
    known = [(n, v) for n, v, k in zip(names, value, is_known, strict=True) if k]
    return ";".join(f"{n}={v}" if exact else f"{n}={v:.{digits}f}" for n, v in known)


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "not known"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ids(value: np.ndarray) -> str:
    if value.dtype.kind not in "iu":
        return ""
    return " ".join(str(int(piece)) for piece in np.atleast_1d(value).ravel() if piece >= 0)
