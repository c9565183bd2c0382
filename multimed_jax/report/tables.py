"""Tables of the report as HTML. Every text that comes from a run is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from multimed_jax.metrics.multilabel import LabelFigures
from multimed_jax.metrics.result_row import ResultRow

# Dataset, task, split, protocol, metric: what one line of a comparison shares.
Place = tuple[str, str, str, str, str]


def results_table(rows: Sequence[ResultRow]) -> str:
    """One line for each figure and baseline of one run."""
    metrics = {row.metric for row in rows}
    places = ["dataset", "task"]
    # Columns that would say the same in every line are left out.
    places += ["split"] if len({row.split for row in rows}) > 1 else []
    places += ["protocol"]
    places += ["metric"] if len(metrics) > 1 else []
    value = "value" if len(metrics) > 1 else rows[0].label
    heads = "".join(f"<th>{name}</th>" for name in places) + (
        f"<th class='num'>{escape(value)}</th><th>interval</th><th class='num'>baseline</th>"
        "<th></th><th class='num'>difference</th><th>interval</th><th>beats</th>"
        "<th class='num'>n</th><th class='num'>groups</th>"
    )
    lines = []
    before: tuple[str, ...] = ()
    for row in rows:
        place = (row.dataset, row.task, row.split, row.protocol, row.metric)
        if place == before:  # only the baseline is another
            head = f"<td colspan='{len(places) + 2}'></td>"
        else:
            texts = [row.label if name == "metric" else getattr(row, name) for name in places]
            head = "".join(f"<td>{escape(text)}</td>" for text in texts) + (
                f"<td class='num'><b>{row.value:.3f}</b></td><td>{_interval(row)}</td>"
            )
        tail = (
            f"<td class='num'>{row.baseline:.3f}</td><td>{_baseline_name(row.baseline_name)}</td>"
            f"<td class='num'>{row.difference:+.3f}</td>"
            f"<td>{bounds(row.difference_interval, sign=True)}</td><td>{verdict(row)}</td>"
            f"<td class='num'>{row.n}</td><td class='num'>{_groups(row)}</td>"
        )
        first = " class='first'" if before and place[:2] != before[:2] else ""
        lines.append(f"<tr{first}>{head}{tail}</tr>")
        before = place
    return html_table(heads, lines)


def comparison_table(runs: Sequence[tuple[str, Sequence[ResultRow]]]) -> str:
    """The same figures of several runs side by side; a run without one says so."""
    found: list[dict[Place, list[ResultRow]]] = []
    for _, rows in runs:
        grouped: dict[Place, list[ResultRow]] = {}
        for row in rows:
            place = (row.dataset, row.task, row.split, row.protocol, row.metric)
            grouped.setdefault(place, []).append(row)
        found.append(grouped)
    heads = "<th>dataset</th><th>figure</th>" + "".join(
        f"<th>{escape(label)}</th>" for label, _ in runs
    )
    lines = []
    for place in dict.fromkeys(place for grouped in found for place in grouped):
        dataset, task, split, protocol, _ = place
        row = next(grouped[place][0] for grouped in found if place in grouped)
        figure = f"<b>{escape(task)}</b><br>{escape(row.label)}, {escape(split)}"
        if protocol != "full":
            figure += f"<br>{escape(protocol)}"
        cells = [f"<td>{escape(dataset)}</td><td>{figure}</td>"]
        for grouped in found:
            cell = _compared(grouped[place]) if place in grouped else "not run"
            cells.append(f"<td>{cell}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return html_table(heads, lines)


def _compared(rows: Sequence[ResultRow]) -> str:
    """One run's figure with all its baselines."""
    row = rows[0]
    out = f"<b>{row.value:.3f}</b> {_interval(row)}<br>n {row.n}, groups {_groups(row)}"
    for row in rows:
        said = verdict(row) if row.is_ceiling else f"beats: {verdict(row)}"
        out += (
            f"<br><span class='against'>{_baseline_name(row.baseline_name)} "
            f"{row.baseline:.3f}, {said}</span>"
        )
    return out


def metrics_table(rows: Sequence[ResultRow]) -> str:
    """Every metric beside the trivial predictor: a line per dataset, task, split and protocol.

    Tasks of the same metrics share a table.
    """
    found: dict[tuple[str, ...], dict[str, ResultRow]] = {}
    for row in rows:
        if row.is_trivial:
            place = (row.task, row.dataset, row.split, row.protocol)
            found.setdefault(place, {})[row.label] = row
    tables: dict[tuple[str, ...], list[str]] = {}
    for (task, dataset, split, protocol), of_place in found.items():
        # Subsets of modalities have their primary metric alone, which the table above shows.
        if len(of_place) < 2:
            continue
        where = ", ".join([split, *([protocol] if protocol != "full" else [])])
        cells = [f"<td><b>{escape(task)}</b><br>{escape(dataset)}<br>{escape(where)}</td>"]
        for row in of_place.values():
            name = escape(row.baseline_name.replace("_", " "))
            cells.append(
                f"<td><b>{row.value:.3f}</b><br>{_interval(row)}<br>"
                f"<span class='interval'>{name} {row.baseline:.3f}</span></td>"
            )
        tables.setdefault(tuple(of_place), []).append(f"<tr>{''.join(cells)}</tr>")
    out = []
    for labels, lines in tables.items():
        heads = ["figure", *(label.replace("_", " ") for label in labels)]
        out.append(html_table("".join(f"<th>{escape(head)}</th>" for head in heads), lines))
    return "".join(out)


def labels_table(labels: Sequence[LabelFigures]) -> str:
    """One line for each label of a task of labels."""

    def cell(value: float) -> str:
        return f"{value:.3f}" if math.isfinite(value) else "undefined"

    return facts_table(
        ("label", "known", "positive", "accuracy", "AUROC", "average precision"),
        [
            (
                label.name,
                label.known,
                label.positives,
                cell(label.accuracy),
                cell(label.auroc),
                cell(label.average_precision),
            )
            for label in labels
        ],
    )


def facts_table(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A plain table of texts."""
    body = [
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>" for cells in lines
    ]
    return html_table("".join(f"<th>{escape(head)}</th>" for head in heads), body)


def html_table(head: str, lines: Iterable[str]) -> str:
    """A table of finished cells; it scrolls where it is too wide."""
    return (
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def bounds(interval: tuple[float, float], sign: bool = False) -> str:
    """An interval in brackets."""
    low, high = (f"{b:+.3f}" if sign else f"{b:.3f}" for b in interval)
    return f"<span class='interval'>[{low}, {high}]</span>"


def _interval(row: ResultRow) -> str:
    mark = "*" if row.interval_unit == "sample" else ""
    return f"{bounds(row.interval)}{mark}"


def _groups(row: ResultRow) -> str:
    return f"{row.groups}{'*' if row.interval_unit == 'sample' else ''}"


def _baseline_name(name: str) -> str:
    text = escape(name.replace("_", " ").replace(":", ": "))
    # Short names stay on one line, whatever the browser would squeeze.
    return f"<span class='interval'>{text}</span>" if len(text) <= 24 else text


def verdict(row: ResultRow) -> str:
    """Whether the row beats its baseline; a ceiling is not there to be beaten."""
    if row.is_ceiling:
        return "<span class='ceiling'>ceiling</span>"
    return "<span class='yes'>yes</span>" if row.beats else "<span class='no'>no</span>"
