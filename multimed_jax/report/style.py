"""How the report looks: one palette, one type scale, for the page and for its figures."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Source: M. Okabe and K. Ito, "Color Universal Design" (2008): told apart by all common kinds of
# colour vision. Their yellow is left out: too faint for lines on white.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
RIGHT, WRONG = "#0072B2", "#D55E00"
INK, SOFT, FAINT, RULE = "#1c2430", "#5b6675", "#8b95a3", "#dfe4ea"
SEQUENTIAL = "Blues"

WIDTH_IN = 10.4  # at the page's width one figure inch is 100 CSS pixels
DPI = 150

_RC: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    # Class names are data: a dollar sign in one is no formula.
    "text.parse_math": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": True,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "white",
    "legend.fancybox": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "savefig.facecolor": "white",
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draws in the report's style, and leaves matplotlib's settings as they were."""
    # The stub lists the keys of this matplotlib version; a wrong one raises KeyError here.
    with matplotlib.rc_context(_RC), warnings.catch_warnings():
        # A class name may use letters that the figure's font lacks; boxes stand for them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def make_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure that belongs to no window system."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a PNG; the same figure gives the same bytes."""
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
    return path


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, the same whatever their order."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(sorted(set(names)))}


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, cut in the middle: names often differ at their ends."""
    if len(text) <= limit:
        return text
    head = (limit - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def bare(axes: Axes) -> None:
    """Takes away ticks, spines and grid."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


CSS = """
:root { --ink: #1c2430; --soft: #5b6675; --faint: #8b95a3; --rule: #dfe4ea; --wash: #f6f8fa;
  --right: #0072B2; --wrong: #b34700; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "Liberation Sans", Arial,
  sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 32px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em;
  overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 56px 0 6px; padding-top: 14px; border-top: 2px solid var(--ink); }
h3 { font-size: 15px; margin: 28px 0 8px; overflow-wrap: anywhere; }
p { margin: 6px 0 14px; max-width: 78ch; }
p.lead { color: var(--soft); margin-bottom: 20px; }
.note { color: var(--soft); font-size: 13.5px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 18px 0 0; padding: 10px 0;
  border-top: 1px solid var(--rule); border-bottom: 1px solid var(--rule); font-size: 14px; }
a { color: var(--right); text-decoration: none; } a:hover { text-decoration: underline; }
dl.facts { display: flex; flex-wrap: wrap;
  gap: 14px 52px; margin: 22px 0 0; }
dl.facts dt { color: var(--soft); font-size: 12.5px; }
dl.facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 12px 0 8px; }
table { border-collapse: collapse; width: 100%; font-size: 13px;
  font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: 12.5px;
  border-bottom: 1px solid var(--ink); padding: 6px 10px 6px 0; vertical-align: bottom; }
td { border-bottom: 1px solid var(--rule); padding: 6px 10px 6px 0; vertical-align: top; }
tr.first td { border-top: 1px solid var(--faint); }
th.num, td.num { text-align: right; white-space: nowrap; }
td.nowrap { white-space: nowrap; } td:last-child, th:last-child { padding-right: 0; }
.interval { color: var(--soft); white-space: nowrap; font-size: 12.5px; }
.against { color: var(--soft); }
.yes { color: var(--right); font-weight: 650; } .no { color: var(--wrong); font-weight: 650; }
.ceiling { color: var(--soft); }
figure { margin: 14px 0 22px; } figure img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: 13px; margin-top: 6px; }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 12px 32px;
  align-items: end; }
.pair figure { margin: 8px 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr));
  gap: 14px; margin: 12px 0 22px; }
.card { border: 1px solid var(--rule); border-left: 4px solid var(--right); border-radius: 4px;
  padding: 10px 14px 12px; font-size: 13.5px; min-width: 0; }
.card.miss { border-left-color: #D55E00; } .card.plain { border-left-color: var(--faint); }
.card .said { font-size: 13px; margin: 0 0 6px; }
.card blockquote { margin: 0; color: #333d4a; white-space: pre-wrap; overflow-wrap: anywhere;
  max-height: 180px; overflow-y: auto; }
details { margin: 14px 0; } summary { cursor: pointer; color: var(--right); }
code { font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
footer { margin-top: 64px; padding-top: 12px; border-top: 1px solid var(--rule);
  color: var(--soft); font-size: 13px; }
@media (max-width: 760px) { main { padding: 24px 16px; } .pair { grid-template-columns: 1fr; } }
@media print { details { display: block; } .card blockquote { max-height: none; } }
"""
