"""Runs a trained model over a split and sorts what it says by source and task."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from multimed_jax.evaluators.context import Predictions
from multimed_jax.layers.label_bank import encode_prompts
from multimed_jax.run import Run
from multimed_jax.specs import Namespace, TaskSpec
from multimed_jax.types import Batch


def predict_split(
    run: Run,
    params: Any,
    model_state: Any,
    split: str,
    keep: frozenset[str] | None = None,
    limit: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> list[Predictions]:
    """Predictions of every (source, task) of a split, each record exactly once, rows ascending.

    Args:
        run: the run whose model is measured.
        params: parameters to measure.
        model_state: the model's other state.
        split: "train", "validation" or "test".
        keep: hides every modality not named.
        limit: at most this many records of each source.
        check: called before each batch; may raise to stop.
    """
    step = functools.partial(run.predict_step, params, model_state)
    found = _run_over(run, step, split, keep, limit, check)
    return _sorted(run, split, found, _cut)


def embed_split(
    run: Run, params: Any, model_state: Any, split: str, check: Callable[[], None] = lambda: None
) -> list[Predictions]:
    """As `predict_split`, with unit vectors of the aligned space in place of probabilities."""
    step = functools.partial(run.embed_step, params, model_state)
    found = _run_over(run, step, split, None, None, check)
    return _sorted(run, split, found, lambda values, namespaces, index: values)


def _run_over(
    run: Run,
    step: Callable[[Batch], dict[str, jax.Array]],
    split: str,
    keep: frozenset[str] | None,
    limit: int | None,
    check: Callable[[], None],
) -> dict[tuple[int, str], list[tuple[np.ndarray, ...]]]:
    found: dict[tuple[int, str], list[tuple[np.ndarray, ...]]] = defaultdict(list)
    with contextlib.closing(run.eval_batches(split, keep, limit)) as batches:
        for batch in batches:
            check()
            placed = run.put(batch)
            # Every process then holds the batch as one process alone would: the same rows follow.
            outputs, batch = run.whole(step(placed)), _slots(run, placed, batch)
            for task in run.spec.tasks:
                _collect(task, batch, outputs[task.name], found)
    return found


def _slots(run: Run, placed: Batch, batch: Batch) -> Batch:
    """The host batch with records and targets of all processes; the rest stays what it was."""
    if jax.process_count() == 1:
        return batch
    record, targets = run.whole((placed.record, placed.targets))
    return dataclasses.replace(batch, record=record, targets=targets)


def _collect(task: TaskSpec, batch: Batch, outputs: np.ndarray, found: dict) -> None:
    """Adds the filled slots of one task to `found[source, task]`."""
    slots = batch.targets[task.name]
    pack, slot = np.nonzero(np.asarray(slots.weight) > 0)
    record = np.asarray(batch.record)[pack, np.asarray(slots.segment)[pack, slot] - 1]
    for source in np.unique(record[:, 0]):
        mine = record[:, 0] == source
        at = pack[mine], slot[mine]
        found[int(source), task.name].append(
            (
                record[mine, 1],
                np.asarray(outputs)[at],
                np.asarray(slots.value)[at],
                np.asarray(slots.namespace)[at],
            )
        )


def _sorted(run: Run, split: str, found: dict, cut: Callable[..., np.ndarray]) -> list[Predictions]:
    data = run.splits[split]
    tasks = {task.name: task for task in run.spec.tasks}
    out = []
    for source, name in sorted(found):
        columns = zip(*found[source, name], strict=True)
        rows, values, targets, spaces = (np.concatenate(column) for column in columns)
        windows = np.asarray(data.sizes[source].windows)
        rows, values, targets = _merge_windows(rows, values, targets, windows)
        index = int(spaces[0])
        namespaces = run.namespaces[name]
        out.append(
            Predictions(
                source=data.sources[source].info,
                task=tasks[name],
                namespace=namespaces[index],
                probabilities=cut(values, namespaces, index),
                targets=_cut_targets(targets, namespaces[index]),
                rows=rows,
                groups=np.asarray(data.sizes[source].group)[rows],
            )
        )
    return out


def _merge_windows(
    rows: np.ndarray, values: np.ndarray, targets: np.ndarray, windows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One prediction a record, rows ascending: those of the windows of a record are averaged."""
    order = np.argsort(rows, kind="stable")
    unique, first, count = np.unique(rows[order], return_index=True, return_counts=True)
    assert np.all(count <= windows[unique]), "a record was predicted twice"
    if count.max() == 1:
        return unique, values[order], targets[order]
    # Pieces of an answer cannot be averaged: the first window speaks.
    merged = values[order][first]
    if np.issubdtype(values.dtype, np.floating):
        total = np.add.reduceat(values[order].astype(np.float64), first, axis=0)
        merged = (total / count.reshape(-1, *[1] * (values.ndim - 1))).astype(values.dtype)
    return unique, merged, targets[order][first]


def _cut(values: np.ndarray, namespaces: Sequence[Namespace], index: int) -> np.ndarray:
    """The columns of one namespace; values without classes stay whole."""
    widths = [len(space.class_names) for space in namespaces]
    if not widths[index]:
        return values
    start = sum(widths[:index])
    return values[..., start : start + widths[index]]


def _cut_targets(targets: np.ndarray, namespace: Namespace) -> np.ndarray:
    """The places of one namespace in targets padded to the widest one; classes stay as they are."""
    wide = targets.ndim > 1 and len(namespace.class_names) > 0
    return targets[..., : len(namespace.class_names)] if wide else targets


class Predictor:
    """`predict_split` with one set of parameters, remembering what it has already run."""

    def __init__(
        self, run: Run, params: Any, model_state: Any, check: Callable[[], None] = lambda: None
    ):
        self._run = run
        self._params = params
        self._model_state = model_state
        self._check = check
        self._seen: dict[tuple[str, frozenset[str] | None], list[Predictions]] = {}

    def __call__(self, split: str, keep: frozenset[str] | None = None) -> list[Predictions]:
        """Predictions of every (source, task) of `split` with only the modalities in `keep`."""
        key = split, keep
        if key not in self._seen:
            self._seen[key] = predict_split(
                self._run, self._params, self._model_state, split, keep, check=self._check
            )
        return self._seen[key]

    def embed(self, split: str) -> list[Predictions]:
        """Unit vectors of the aligned space for every (source, task) of `split`."""
        return embed_split(self._run, self._params, self._model_state, split, self._check)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of texts in the aligned space, [n, E]."""
        ids = encode_prompts(texts, self._run.config.alignment.max_label_tokens)
        return np.asarray(self._run.text_step(self._params, self._model_state, ids))
