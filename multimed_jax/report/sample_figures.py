"""Sheets of records as a person sees them: images, traces and bars with what was said of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from multimed_jax.report.run_data import SampleSheet
from multimed_jax.report.style import (
    INK,
    RIGHT,
    SOFT,
    WIDTH_IN,
    WRONG,
    bare,
    make_figure,
    save_figure,
    shorten,
)

_COLUMNS = 4
_MAX_BARS = 12

Shown = tuple[Mapping[str, Any], Mapping[str, Any]]  # record, preview


def by_modality(sheet: SampleSheet) -> dict[str, list[Shown]]:
    """Modality -> (record, preview) pairs, in the order of the sheet."""
    out: dict[str, list[Shown]] = {}
    for record in sheet.sheet["records"]:
        for preview in record["previews"]:
            out.setdefault(preview["modality"], []).append((record, preview))
    return out


def draw_samples(sheet: SampleSheet, shown: Sequence[Shown], path: Path) -> Path:
    """One panel for each record; all of them of the same modality."""
    kind = shown[0][1]["kind"]
    draw, panel_height = _DRAWERS[kind]
    rows = -(-len(shown) // _COLUMNS)
    figure = make_figure(WIDTH_IN, rows * panel_height)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.1)  # pyright: ignore
    grid = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes, (record, preview) in zip(grid, shown, strict=False):
        draw(axes, sheet.arrays[preview["array"]], preview)
        _caption(axes, record, sheet.sheet)
    for axes in grid[len(shown) :]:
        axes.set_visible(False)
    return save_figure(figure, path)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is said of a record.

    Attributes:
        right: None where there is no right and wrong, as with a number.
        truth: in words; "" where it is an array.
        said: the prediction in words.
        probability: of what was said, as text; "" where there is none.
    """

    right: bool | None
    truth: str
    said: str
    probability: str

    @property
    def mark(self) -> str:
        """Repeats what the colour says."""
        return "" if self.right is None else "✓" if self.right else "✗"


def verdict(record: Mapping[str, Any], sheet: Mapping[str, Any]) -> Verdict:
    """Of classes from their indices, of any other kind as the sheet words it."""
    # Sheets written before the kind was told hold classes.
    if "kind" in sheet and sheet["kind"] != "classes":
        return Verdict(record["right"], record["truth"], record["prediction"], "")
    names, truth, guess = sheet["class_names"], int(record["truth"]), int(record["prediction"])
    return Verdict(truth == guess, names[truth], names[guess], f"{record['probability']:.2f}")


def _caption(axes: Axes, record: Mapping[str, Any], sheet: Mapping[str, Any]) -> None:
    told = verdict(record, sheet)
    if not (told.truth or told.said):
        return
    colour = INK if told.right is None else RIGHT if told.right else WRONG
    said = f"{told.mark} said  {_fitted(told.said, sheet, 26)} {told.probability}".strip()
    # Two lines above the panel.
    axes.set_title(
        f"truth  {_fitted(told.truth, sheet, 28)}\n{said}",
        fontsize=8,
        fontweight="normal",
        color=colour,
        linespacing=1.35,
        pad=5,
    )


def _fitted(text: str, sheet: Mapping[str, Any], limit: int) -> str:
    """Names differ at their ends and are cut inside; lists of values keep their first columns."""
    if "kind" not in sheet or sheet["kind"] == "classes" or len(text) <= limit:
        return shorten(text, limit)
    return f"{text[: limit - 1].rstrip(' ,')}…"


def _draw_image(axes: Axes, values: np.ndarray, preview: Mapping[str, Any]) -> None:
    bare(axes)
    axes.set_anchor("N")  # captions of one row stand in one line, whatever the aspects
    axes.imshow(values, cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def _draw_traces(axes: Axes, values: np.ndarray, preview: Mapping[str, Any]) -> None:
    bare(axes)
    if not values.size:
        return
    finite = np.where(np.isfinite(values), values, 0.0)
    # Twice a robust amplitude keeps neighbours apart, whatever a single spike does.
    gap = 4.0 * max(float(np.median(finite.std(0))), 1e-6)
    num_channels = finite.shape[1]
    for c in range(num_channels):
        trace = np.clip(finite[:, c] - np.median(finite[:, c]), -gap, gap)
        axes.plot(trace - c * gap, color=INK, linewidth=0.5)
    axes.set_ylim(-(num_channels - 1) * gap - gap, gap)
    axes.set_xlim(0, max(len(finite) - 1, 1))
    labels = [shorten(label, 6) for label in preview["labels"]] or [""] * num_channels
    axes.set_yticks([-c * gap for c in range(num_channels)], labels[:num_channels])
    axes.tick_params(axis="y", length=0, labelsize=6.5)
    unit = f" {preview['unit']}" if preview["unit"] else ""
    axes.set_xlabel(f"{len(finite)} samples; row gap {gap:.3g}{unit}", fontsize=7)


def _draw_bars(axes: Axes, values: np.ndarray, preview: Mapping[str, Any]) -> None:
    values = values[:_MAX_BARS]
    labels = [shorten(label, 12) for label in preview["labels"][: len(values)]]
    place = np.arange(len(values))
    axes.barh(place, values, color=SOFT, height=0.7)
    axes.set_yticks(place, labels or [str(p) for p in place])
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelsize=6.5, labelcolor=INK)
    axes.tick_params(axis="x", labelsize=6.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(preview["unit"], fontsize=7)


_Drawer = Callable[[Axes, np.ndarray, Mapping[str, Any]], None]

# Kind of preview -> how a panel is drawn, and its height in inches.
_DRAWERS: dict[str, tuple[_Drawer, float]] = {
    "image": (_draw_image, 2.9),
    "traces": (_draw_traces, 2.6),
    "bars": (_draw_bars, 2.6),
}
