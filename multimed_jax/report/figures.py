"""Figures of the results: intervals beside baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from multimed_jax.metrics.result_row import ResultRow
from multimed_jax.report.run_data import RunData
from multimed_jax.report.style import (
    INK,
    PALETTE,
    SOFT,
    WIDTH_IN,
    make_figure,
    save_figure,
    shorten,
)

# Baselines in one colour, told apart by shape: marker, size, filled.
_TRIVIAL = ("|", 13, True)
_CEILING = ("*", 9, False)
# Any other takes the next of these when it is first met.
_OTHERS = tuple((marker, 5.5, False) for marker in "Ds^vpPXh")

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
    named = "" if metric == "accuracy" else f" ({metric.replace('_', ' ')})"
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
    # The trivial predictor of every task has the same mark, whatever its name.
    name = "trivial baseline" if row.is_trivial else name
    if name not in used:
        number = sum(shape in _OTHERS for shape in used.values())
        other = _OTHERS[number % len(_OTHERS)]
        used[name] = _CEILING if row.is_ceiling else _TRIVIAL if row.is_trivial else other
    marker, size, filled = used[name]
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


def split_rows(run: RunData, rows: Sequence[ResultRow]) -> tuple[str, list[ResultRow]]:
    """The rows of "test" where it was evaluated, else of the last split."""
    splits = [row.split for row in run.rows]
    split = "test" if "test" in splits else splits[-1]
    return split, [row for row in rows if row.split == split]
