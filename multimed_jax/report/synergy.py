"""What combining modalities is worth, from the rows of the evaluator of modality subsets.

    synergy = S(AB) - max(S(A), S(B))

S is the primary metric on the same records, with only those modalities shown. Where the optimum of
the subsets is known (simulated sources), the same difference of optima stands beside it: what a
perfect reader would gain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from html import escape

from multimed_jax.metrics.result_row import BEST_SINGLE, ResultRow
from multimed_jax.report.tables import bounds, html_table, verdict

_KEEP = "keep:"


@dataclasses.dataclass(frozen=True)
class Synergy:
    """One combination.

    Attributes:
        row: of the combination beside its best single modality.
        modalities: of the combination.
        best: its best single modality.
        ceiling: known optimum of the combination; None where it is not known.
        best_ceiling: the highest optimum of one of its modalities; None unless all are known.
    """

    row: ResultRow
    modalities: tuple[str, ...]
    best: str
    ceiling: float | None
    best_ceiling: float | None

    @property
    def optimal(self) -> float | None:
        """The synergy of the optima."""
        if self.ceiling is None or self.best_ceiling is None:
            return None
        return self.ceiling - self.best_ceiling


def find_synergies(rows: Iterable[ResultRow]) -> list[Synergy]:
    """Every combination that stands beside its best single modality."""
    rows = list(rows)
    ceilings = {
        (*_place(row), _modalities(row)): row.baseline
        for row in rows
        if row.is_ceiling and _KEEP in row.protocol
    }
    out = []
    for row in rows:
        if not row.baseline_name.startswith(BEST_SINGLE):
            continue
        names = _modalities(row)
        singles = [ceilings[key] for name in names if (key := (*_place(row), (name,))) in ceilings]
        whole = (*_place(row), names)
        out.append(
            Synergy(
                row=row,
                modalities=names,
                best=row.baseline_name.removeprefix(BEST_SINGLE),
                ceiling=ceilings[whole] if whole in ceilings else None,
                best_ceiling=max(singles) if len(singles) == len(names) else None,
            )
        )
    return out


def _place(row: ResultRow) -> tuple[str, ...]:
    return row.dataset, row.task, row.split, row.metric


def _modalities(row: ResultRow) -> tuple[str, ...]:
    """Of "keep:text+xray" or "within_group keep:text+xray"."""
    return tuple(sorted(row.protocol.partition(_KEEP)[2].split("+")))


def synergy_section(rows: Iterable[ResultRow]) -> str:
    """The table with what it means, or why there is none."""
    found = find_synergies(rows)
    if not found:
        return (
            "<p class='note'>No combination of modalities was measured: no source has records that "
            "carry several, or the evaluator modality_subsets did not run.</p>"
        )
    return (
        "<p class='note'>The same model on the same records, with other modalities hidden at test. "
        "<b>Synergy</b> is the figure of the combination minus that of its best single modality; "
        "its interval is paired, and the best single is chosen on these records, which makes the "
        "synergy look smaller rather than larger. The <b>optimum</b> is the best that any reader "
        "could reach on average, known for simulated sources; the optimal synergy is the same "
        f"difference of optima.</p>{synergy_table(found)}"
    )


def synergy_table(found: Sequence[Synergy]) -> str:
    """One line for each combination."""
    several = len({synergy.row.split for synergy in found}) > 1
    heads = [
        *("<th>dataset</th>", "<th>task, metric</th>", "<th>modalities</th>"),
        *("<th class='num'>together</th>", "<th>interval</th>"),
        *("<th>best single</th>", "<th class='num'>alone</th>"),
        *("<th class='num'>synergy</th>", "<th>interval</th>", "<th>above 0</th>"),
        *("<th class='num'>optimum</th>", "<th class='num'>optimal synergy</th>"),
        *("<th class='num'>n</th>", "<th class='num'>groups</th>"),
    ]
    lines = []
    for synergy in found:
        row = synergy.row
        where = f"{row.task}, {row.metric}" + (f", {row.split}" if several else "")
        mark = "*" if row.interval_unit == "sample" else ""
        cells = [
            f"<td>{escape(row.dataset)}</td><td>{escape(where)}</td>",
            f"<td>{escape(' + '.join(synergy.modalities))}</td>",
            f"<td class='num'><b>{row.value:.3f}</b></td><td>{bounds(row.interval)}{mark}</td>",
            f"<td>{escape(synergy.best)}</td><td class='num'>{row.baseline:.3f}</td>",
            f"<td class='num'><b>{row.difference:+.3f}</b></td>",
            f"<td>{bounds(row.difference_interval, sign=True)}{mark}</td><td>{verdict(row)}</td>",
            f"<td class='num'>{_known(synergy.ceiling)}</td>",
            f"<td class='num'>{_known(synergy.optimal, sign=True)}</td>",
            f"<td class='num'>{row.n}</td><td class='num'>{row.groups}{mark}</td>",
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return html_table("".join(heads), lines)


def _known(value: float | None, sign: bool = False) -> str:
    if value is None:
        return "<span class='against'>not known</span>"
    return f"{value:+.3f}" if sign else f"{value:.3f}"
