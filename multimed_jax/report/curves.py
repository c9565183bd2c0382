"""Figures over training steps: losses, validation figures and fill rates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from multimed_jax.report.run_data import Curve, RunData
from multimed_jax.report.style import (
    INK,
    PALETTE,
    SOFT,
    WIDTH_IN,
    colours,
    make_figure,
    save_figure,
    shorten,
)


def tasks_of(run: RunData) -> list[str]:
    """Tasks with a logged loss or validation figure."""
    losses = [name.split("/")[1] for name in run.curves if _is_loss(name)]
    checks = [name.rsplit("/", 1)[1] for name in run.curves if _is_validation(name)]
    return sorted({*losses, *checks})


def _is_loss(name: str) -> bool:
    return name.startswith("loss/") and name.count("/") == 2


def _is_validation(name: str) -> bool:
    """Whether a name is "<metric>/validation/<source>/<task>"; a source may hold a /."""
    parts = name.split("/")
    return len(parts) >= 4 and parts[1] == "validation"


def draw_learning_curves(run: RunData, task: str, path: Path) -> Path:
    """The loss per modality beside the validation figure per source."""
    figure = make_figure(WIDTH_IN, 3.3)
    left, right = figure.subplots(1, 2)
    losses = {
        name.split("/")[2]: curve
        for name, curve in run.curves.items()
        if _is_loss(name) and name.split("/")[1] == task
    }
    every = [name.split("/")[2] for name in run.curves if _is_loss(name)]
    palette = colours(every)
    for i, (modality, curve) in enumerate(sorted(losses.items())):
        colour = palette[modality]
        # A record of two modalities counts under both: equal curves must not hide each other.
        dashes = "-" if i == 0 else (i * 4, (4, 4))
        left.plot(curve.steps, curve.values, color=colour, alpha=0.22, linewidth=0.8)
        left.plot(curve.steps, smoothed(curve), color=colour, linestyle=dashes, label=modality)
    _finish(left, f"{task}: training loss by modality", "loss", bool(losses))
    if losses:
        left.set_ylim(bottom=0)
    _draw_validation(run, task, right)
    return save_figure(figure, path)


def _draw_validation(run: RunData, task: str, axes: Axes) -> None:
    found = {}
    metric = ""
    for name, curve in run.curves.items():
        if _is_validation(name) and name.rsplit("/", 1)[1] == task:
            metric, rest = name.split("/validation/", 1)
            found[rest.rsplit("/", 1)[0]] = curve
    chance = trivial_figures(run, task, metric)
    for i, (source, curve) in enumerate(sorted(found.items())):
        colour = PALETTE[i % len(PALETTE)]
        axes.plot(
            curve.steps,
            curve.values,
            color=colour,
            marker="o",
            markersize=3,
            label=shorten(source, 34),
        )
        if source in chance:
            axes.axhline(chance[source][1], color=colour, linestyle=(0, (4, 3)), linewidth=1.1)
    names = sorted({chance[source][0].replace("_", " ") for source in found if source in chance})
    if names:
        label = " or ".join(names)
        axes.plot([], [], color=SOFT, linestyle=(0, (4, 3)), linewidth=1.1, label=label)
    _finish(axes, f"{task}: validation {metric or 'figure'}", metric, bool(found))
    if found:
        low, high = axes.get_ylim()
        axes.set_ylim(max(0.0, low - 0.02) if low >= 0 else low, high)


def trivial_figures(run: RunData, task: str, metric: str) -> dict[str, tuple[str, float]]:
    """Source -> name of the trivial predictor and what it scores on the evaluated split."""
    return {
        row.dataset: (row.baseline_name, row.baseline)
        for row in run.rows
        if row.task == task
        and row.metric == metric
        and row.is_trivial
        and "keep:" not in row.protocol
    }


def draw_fill(run: RunData, path: Path) -> Path | None:
    """Share of token slots and of stream slots that hold something; None where not logged."""
    fills = {n.removeprefix("fill/"): c for n, c in run.curves.items() if n.startswith("fill/")}
    if not fills:
        return None
    figure = make_figure(WIDTH_IN, 3.0)
    axes = figure.subplots()
    streams = {n: c for n, c in fills.items() if n != "token"}
    palette = colours(streams)
    for name, curve in sorted(streams.items()):
        label = f"{name.removeprefix('stream/')}, mean {curve.values.mean():.2f}"
        axes.plot(curve.steps, curve.values, color=palette[name], label=label, linewidth=1.2)
    if "token" in fills:
        curve = fills["token"]
        label = f"token slots, mean {curve.values.mean():.2f}"
        axes.plot(curve.steps, curve.values, color=INK, linewidth=2.4, label=label)
    _finish(axes, "Filled share of token slots and of each stream's slots", "fill", True)
    axes.set_ylim(0, 1.02)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return save_figure(figure, path)


def smoothed(curve: Curve) -> np.ndarray:
    """Running mean over about a twentieth of the points, shorter at both ends."""
    half = max(1, len(curve.values) // 40)
    total = np.concatenate([[0.0], np.cumsum(curve.values)])
    index = np.arange(len(curve.values))
    # Symmetric windows: a lopsided one would bend a falling curve at its ends.
    reach = np.minimum(half, np.minimum(index, index[::-1]))
    return (total[index + reach + 1] - total[index - reach]) / (2 * reach + 1)


def _finish(axes: Axes, title: str, label: str, has_data: bool) -> None:
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    if has_data:
        # Below the panel, where no curve can run under it.
        names = [str(line.get_label()) for line in axes.get_lines()]
        widest = max(len(name) for name in names if not name.startswith("_"))
        columns = 4 if widest <= 12 else 2 if widest <= 26 else 1
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=columns, borderaxespad=0)
        return
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, "not logged", transform=axes.transAxes, ha="center", color=SOFT)


def logged(curves: Mapping[str, Curve]) -> bool:
    """Whether there is anything to draw."""
    return any(_is_loss(name) or _is_validation(name) for name in curves)
