"""Figures of the results: intervals beside baselines, and confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from multimed_jax.metrics.result_row import CEILING, ResultRow
from multimed_jax.report.run_data import RunData, StoredPredictions
from multimed_jax.report.style import (
    INK,
    PALETTE,
    SEQUENTIAL,
    SOFT,
    WIDTH_IN,
    make_figure,
    save_figure,
    shorten,
)

# Above so many classes numbers in the cells can no longer be read.
MAX_WRITTEN_CLASSES = 12

# Baselines in one colour, told apart by shape: marker, size, filled.
_MAJORITY = ("|", 13, True)
_SHAPES = {
    "majority": _MAJORITY,
    "logistic_regression": ("D", 5.5, False),
    CEILING: ("*", 9, False),
}
_OTHER_SHAPE = ("s", 5, False)

Place = tuple[str, str, str, str]  # task, dataset, protocol, metric


def draw_intervals(runs: Sequence[tuple[str, Sequence[ResultRow]]], path: Path) -> Path:
    """A dot and a whisker for each figure, with its baselines as marks on the same line.

    Args:
        runs: label and primary rows of one split of each run.
        path: of the PNG.
    """
    places = list(dict.fromkeys(_place(row) for _, rows in runs for row in rows))
    step = max(1.0, 0.45 * len(runs))
    height = 1.3 + 0.36 * step * len(places)
    figure = make_figure(WIDTH_IN, height)
    axes = figure.subplots()
    used: dict[str, tuple[str, float, bool]] = {}
    for number, (_, rows) in enumerate(runs):
        for row in rows:
            offset = (number - (len(runs) - 1) / 2) * 0.8 / max(len(runs), 1)
            y = places.index(_place(row)) + (offset if len(runs) > 1 else 0.0)
            _draw_row(axes, row, y, PALETTE[number % len(PALETTE)], used)
    labels = [_place_label(place) for place in places]
    axes.set_yticks(range(len(places)), labels)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("primary metric")
    values = [v for _, rows in runs for row in rows for v in (*row.interval, row.baseline)]
    axes.set_xlim(min(0.0, *values) - 0.01, max(1.0, *values) + 0.01)
    figure.legend(
        handles=_legend([label for label, _ in runs], used),
        loc="outside upper left",
        ncols=min(5, len(runs) + len(used)),
    )
    return save_figure(figure, path)


def _place(row: ResultRow) -> Place:
    return row.task, row.dataset, row.protocol, row.metric


def _place_label(place: Place) -> str:
    task, dataset, protocol, metric = place
    extra = "" if protocol == "full" else f"\n{shorten(protocol, 40)}"
    named = "" if metric == "accuracy" else f" ({metric})"
    return f"{task}{named} · {shorten(dataset, 34)}{extra}"


def _draw_row(
    axes: Axes,
    row: ResultRow,
    y: float,
    colour: str,
    used: dict[str, tuple[str, float, bool]],
) -> None:
    axes.plot(row.interval, [y, y], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=3)
    axes.plot(row.value, y, "o", color=colour, markersize=6.5, zorder=4)
    name = row.baseline_name.partition(":")[0]
    shape = _SHAPES[name] if name in _SHAPES else _OTHER_SHAPE
    used[name] = shape
    marker, size, filled = shape
    axes.plot(
        row.baseline,
        y,
        marker,
        color=SOFT,
        markersize=size,
        markeredgewidth=1.8 if marker == "|" else 1.2,
        markerfacecolor=SOFT if filled else "white",
        zorder=5 if filled else 2.5,
    )


def _legend(labels: Sequence[str], used: dict[str, tuple[str, float, bool]]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=PALETTE[i % len(PALETTE)], marker="o", label=shorten(label, 30))
        for i, label in enumerate(labels)
    ]
    for name, (marker, size, filled) in used.items():
        handles.append(
            Line2D(
                [],
                [],
                linestyle="",
                marker=marker,
                color=SOFT,
                markersize=size,
                markeredgewidth=1.5,
                markerfacecolor=SOFT if filled else "white",
                label=shorten(name.replace("_", " "), 34),
            )
        )
    return handles


def draw_confusion(found: StoredPredictions, path: Path) -> Path:
    """Counts of truth (rows) against prediction (columns), shaded by the share of the row."""
    counts = confusion_counts(found)
    num_classes = len(found.class_names)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = make_figure(WIDTH_IN / 2, WIDTH_IN / 2 * 0.8)
    axes = figure.subplots()
    axes.grid(False)
    axes.imshow(share, cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="equal")
    names = [shorten(name, 22) for name in found.class_names]
    size = 8.5 if num_classes <= 8 else 7.5 if num_classes <= 16 else 6
    axes.set_xticks(range(num_classes), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(num_classes), names)
    axes.tick_params(length=0, labelsize=size, labelcolor=INK)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    for spine in axes.spines.values():
        spine.set_visible(False)
    if num_classes <= MAX_WRITTEN_CLASSES:
        for (i, j), count in np.ndenumerate(counts):
            if count:
                colour = "white" if share[i, j] > 0.55 else INK
                axes.text(j, i, str(count), ha="center", va="center", color=colour, fontsize=size)
    return save_figure(figure, path)


def confusion_counts(found: StoredPredictions) -> np.ndarray:
    """[truth, prediction] counts of records."""
    num_classes = len(found.class_names)
    cell = found.targets.astype(np.int64) * num_classes + found.probabilities.argmax(1)
    return np.bincount(cell, minlength=num_classes**2).reshape(num_classes, num_classes)


def split_rows(run: RunData, rows: Sequence[ResultRow]) -> tuple[str, list[ResultRow]]:
    """The rows of "test" where it was evaluated, else of the last split."""
    splits = [row.split for row in run.rows]
    split = "test" if "test" in splits else splits[-1]
    return split, [row for row in rows if row.split == split]
