"""Figures of predictions against the truth: confusion matrices, scatters and bars per label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from multimed_jax.metrics.multilabel import LabelFigures, per_label
from multimed_jax.report.run_data import StoredPredictions
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
# So many columns of values are drawn, and so many points of each.
MAX_COLUMNS = 6
_MAX_POINTS = 4000


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


def draw_scatter(found: StoredPredictions, path: Path) -> Path:
    """Prediction against truth of the first columns of values, with n and the line of equality."""
    columns = min(len(found.class_names), MAX_COLUMNS)
    across = min(columns, 3)
    rows = -(-columns // across)
    width = WIDTH_IN / 2 if columns == 1 else WIDTH_IN
    side = 3.9 if columns == 1 else 3.3
    figure = make_figure(width, rows * side)
    grid = figure.subplots(rows, across, squeeze=False).ravel()
    for column, axes in enumerate(grid[:columns]):
        _draw_values(axes, found, column)
    for axes in grid[columns:]:
        axes.set_visible(False)
    return save_figure(figure, path)


def _draw_values(axes: Axes, found: StoredPredictions, column: int) -> None:
    name = found.class_names[column]
    truth, said = known_values(found, column)
    axes.set_xlabel(f"truth, {shorten(name, 24)}")
    axes.set_ylabel("prediction")
    if not len(truth):
        axes.set_title(f"{shorten(name, 24)}: no known value")
        return
    error = np.abs(said - truth).mean()
    axes.set_title(f"n {len(truth):,}, mean absolute error {error:.3g}")
    # A fixed thinning: the same folder gives the same figure.
    step = -(-len(truth) // _MAX_POINTS)
    size = 14 if len(truth) <= 500 else 5
    axes.scatter(
        truth[::step], said[::step], s=size, color=PALETTE[0], alpha=0.45, linewidths=0, zorder=3
    )
    low, high = min(truth.min(), said.min()), max(truth.max(), said.max())
    margin = 0.04 * max(high - low, 1e-6)
    ends = (low - margin, high + margin)
    axes.plot(ends, ends, color=SOFT, linestyle=(0, (4, 3)), linewidth=1.1, zorder=4)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_aspect("equal")


def known_values(found: StoredPredictions, column: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction of one column where the truth is known."""
    truth = found.targets[:, column].astype(np.float64)
    known = np.isfinite(truth)
    return truth[known], found.probabilities[known, column].astype(np.float64)


def label_figures(found: StoredPredictions) -> list[LabelFigures]:
    """The figures of each label."""
    return per_label(found.probabilities, found.targets, found.class_names)


def draw_labels(found: StoredPredictions, path: Path) -> Path:
    """AUROC and average precision of each label beside what no skill would give."""
    labels = label_figures(found)
    figure = make_figure(WIDTH_IN, 1.3 + 0.34 * len(labels))
    figure.get_layout_engine().set(w_pad=0.12)  # pyright: ignore
    left, right = figure.subplots(1, 2, sharey=True)
    place = np.arange(len(labels))
    share = [label.positives / label.known if label.known else np.nan for label in labels]
    _draw_bars(left, [label.auroc for label in labels], [0.5] * len(labels), "AUROC")
    _draw_bars(right, [label.average_precision for label in labels], share, "average precision")
    names = [
        f"{shorten(label.name, 28)}  {label.positives:,} of {label.known:,}" for label in labels
    ]
    left.set_yticks(place, names)
    left.set_ylim(len(labels) - 0.5, -0.5)
    return save_figure(figure, path)


def _draw_bars(axes: Axes, values: list[float], chance: list[float], title: str) -> None:
    place = np.arange(len(values))
    defined = np.isfinite(values)
    axes.barh(place[defined], np.array(values)[defined], color=PALETTE[0], height=0.62, zorder=2)
    for y in place[~defined]:
        axes.text(0.01, y, "undefined", color=SOFT, va="center", fontsize=7.5)
    axes.plot(
        np.array(chance)[defined],
        place[defined],
        "|",
        color=INK,
        markersize=13,
        markeredgewidth=1.8,
        zorder=3,
    )
    axes.set_title(f"{title} (mark: no skill)")
    axes.set_xlim(0, 1.02)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
