"""Tables of the report as HTML. Every text that comes from a run is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from multimed_jax.metrics.result_row import ResultRow

# Dataset, task, split, protocol, metric, baseline: what one line of a comparison shares.
Key = tuple[str, str, str, str, str, str]


def results_table(rows: Sequence[ResultRow]) -> str:
    """One line for each figure and baseline of one run."""
    split = len({row.split for row in rows}) > 1
    heads = [
        "<th>dataset</th><th>task</th>",
        "<th>split</th>" if split else "",
        "<th>protocol</th><th>metric</th><th class='num'>value</th><th>interval</th>",
        "<th class='num'>baseline</th><th></th><th class='num'>difference</th><th>interval</th>",
        "<th>beats</th><th class='num'>n</th><th class='num'>groups</th>",
    ]
    lines = []
    before: tuple[str, ...] = ()
    for row in rows:
        place = (row.dataset, row.task, row.split, row.protocol, row.metric)
        cells = [
            f"<td>{escape(row.dataset)}</td><td>{escape(row.task)}</td>",
            f"<td>{escape(row.split)}</td>" if split else "",
            f"<td>{escape(row.protocol)}</td><td>{escape(row.metric)}</td>",
            f"<td class='num'><b>{row.value:.3f}</b></td><td>{_interval(row)}</td>",
        ]
        if place == before:  # only the baseline is another
            cells = [f"<td colspan='{7 if split else 6}'></td>"]
        cells.append(
            f"<td class='num'>{row.baseline:.3f}</td><td>{_baseline_name(row.baseline_name)}</td>"
            f"<td class='num'>{row.difference:+.3f}</td>"
            f"<td>{_bounds(row.difference_interval, sign=True)}</td><td>{_beats(row)}</td>"
            f"<td class='num'>{row.n}</td><td class='num'>{_groups(row)}</td>"
        )
        first = " class='first'" if before and place[:2] != before[:2] else ""
        lines.append(f"<tr{first}>{''.join(cells)}</tr>")
        before = place
    return _table("".join(heads), lines)


def comparison_table(runs: Sequence[tuple[str, Sequence[ResultRow]]]) -> str:
    """The same figures of several runs side by side; a run without one says so."""
    keys: dict[Key, None] = {}
    found: list[dict[Key, ResultRow]] = []
    for _, rows in runs:
        found.append({_key(row): row for row in rows})
        keys.update(dict.fromkeys(found[-1]))
    names = "".join(f"<th class='run' colspan='3'>{escape(label)}</th>" for label, _ in runs)
    heads = (
        "<th rowspan='2'>dataset</th><th rowspan='2'>task</th><th rowspan='2'>protocol</th>"
        f"<th rowspan='2'>metric</th><th rowspan='2'>against</th>{names}</tr><tr>"
        + "<th class='num'>value</th><th>interval</th><th>beats</th>"
        * len(runs)
    )
    several = len({key[2] for key in keys}) > 1
    lines = []
    for key in sorted(keys):
        dataset, task, split, protocol, metric, baseline = key
        if several:
            protocol = f"{split}, {protocol}"
        cells = [f"<td>{escape(text)}</td>" for text in (dataset, task, protocol, metric)]
        cells.append(f"<td>{_baseline_name(baseline)}</td>")
        for rows in found:
            if key not in rows:
                cells.append("<td colspan='3' class='ceiling'>not run</td>")
                continue
            row = rows[key]
            cells.append(
                f"<td class='num'><b>{row.value:.3f}</b></td><td>{_interval(row)}<br>"
                f"<span class='interval'>against {row.baseline:.3f}; n {row.n}, {_groups(row)} "
                f"groups</span></td><td>{_beats(row)}</td>"
            )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return _table(heads, lines)


def metrics_table(rows: Sequence[ResultRow]) -> str:
    """Every metric beside the majority class: one line per dataset, task and protocol."""
    rows = [row for row in rows if row.baseline_name == "majority"]
    metrics = list(dict.fromkeys(row.metric for row in rows))
    places = dict.fromkeys((row.dataset, row.task, row.split, row.protocol) for row in rows)
    found = {(row.dataset, row.task, row.split, row.protocol, row.metric): row for row in rows}
    lines = []
    for place in places:
        cells = [f"<td>{escape(text)}</td>" for text in place]
        for metric in metrics:
            if (*place, metric) not in found:
                cells.append("<td></td>")
                continue
            row = found[*place, metric]
            cells.append(
                f"<td><b>{row.value:.3f}</b> {_interval(row)}<br><span class='interval'>"
                f"majority {row.baseline:.3f}</span></td>"
            )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    heads = ["dataset", "task", "split", "protocol", *metrics]
    return _table("".join(f"<th>{escape(head)}</th>" for head in heads), lines)


def facts_table(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A plain table of texts."""
    body = [
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>" for cells in lines
    ]
    return _table("".join(f"<th>{escape(head)}</th>" for head in heads), body)


def _key(row: ResultRow) -> Key:
    return row.dataset, row.task, row.split, row.protocol, row.metric, row.baseline_name


def _table(head: str, lines: Iterable[str]) -> str:
    return (
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _bounds(bounds: tuple[float, float], sign: bool = False) -> str:
    low, high = (f"{b:+.3f}" if sign else f"{b:.3f}" for b in bounds)
    return f"<span class='interval'>[{low}, {high}]</span>"


def _interval(row: ResultRow) -> str:
    mark = "*" if row.interval_unit == "sample" else ""
    return f"{_bounds(row.interval)}{mark}"


def _groups(row: ResultRow) -> str:
    return f"{row.groups}{'*' if row.interval_unit == 'sample' else ''}"


def _baseline_name(name: str) -> str:
    return escape(name.replace("_", " ").replace(":", ": "))


def _beats(row: ResultRow) -> str:
    if row.is_ceiling:
        return "<span class='ceiling'>ceiling</span>"
    return "<span class='yes'>yes</span>" if row.beats else "<span class='no'>no</span>"
