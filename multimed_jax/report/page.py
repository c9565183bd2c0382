"""The page: one HTML file without links to any other, beside the PNGs that it shows."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from multimed_jax.metrics.result_row import (
    BEST_SINGLE,
    ResultRow,
    grouped_rows,
    primary_rows,
)
from multimed_jax.report.curves import draw_fill, draw_learning_curves, logged, tasks_of
from multimed_jax.report.figures import draw_intervals, split_rows
from multimed_jax.report.prediction_figures import (
    MAX_COLUMNS,
    draw_confusion,
    draw_labels,
    draw_scatter,
    label_figures,
)
from multimed_jax.report.run_data import RunData, read_runs
from multimed_jax.report.sample_cards import text_cards
from multimed_jax.report.sample_figures import by_modality, draw_samples
from multimed_jax.report.style import CSS, styled
from multimed_jax.report.synergy import synergy_section
from multimed_jax.report.tables import (
    comparison_table,
    facts_table,
    labels_table,
    metrics_table,
    results_table,
)
from multimed_jax.types import UserError


def write_report(folders: Sequence[Path], output: Path) -> Path:
    """Writes `report.html` and the PNG figures of run folders into the folder `output`.

    Raises:
        UserError: where a folder is no finished run, or `output` cannot be written.
    """
    runs = read_runs(folders)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with styled():
            text = _Page(runs, output).html()
        temporary = output / ".report.html.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, output / "report.html")
    except OSError as error:
        raise UserError(f"the report cannot be written to {output}: {error.strerror}") from None
    return output / "report.html"


class _Page:
    """Builds the sections; every figure is a PNG in the folder and a data URI in the page."""

    def __init__(self, runs: Sequence[RunData], output: Path):
        self._runs = runs
        self._output = output

    def html(self) -> str:
        sections = [("results", "Results", self._results())]
        for run in self._runs:
            # With several runs each has its own figures, named after it.
            tail = f" of {run.label}" if len(self._runs) > 1 else ""
            mark = f"{_slug(run.label)}-" if len(self._runs) > 1 else ""
            for name, title, body in (
                ("synergy", "Modalities together", synergy_section(run.rows)),
                ("predictions", "Predictions", self._predictions(run, mark)),
                ("curves", "Learning curves", self._curves(run, mark)),
                ("fill", "Packing", self._fill(run, mark)),
                ("samples", "Samples", self._samples(run, mark)),
                ("about", "About the run", _about(run)),
            ):
                sections.append((f"{mark}{name}", f"{title}{tail}", body))
        links = "".join(f"<a href='#{name}'>{escape(title)}</a>" for name, title, _ in sections)
        body = "".join(
            f"<section id='{name}'><h2>{escape(title)}</h2>{text}</section>"
            for name, title, text in sections
        )
        title = " and ".join(run.label for run in self._runs)
        return (
            "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
            "<meta name='viewport' content='width=device-width, initial-scale=1'>"
            f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>"
            f"<h1>{escape(title)}</h1>{_lead(self._runs)}<nav>{links}</nav>{body}"
            "<footer>Made by <code>python -m multimed_jax.report</code> from the run folder's "
            "results store. Not for clinical use.</footer></main></body></html>\n"
        )

    def _figure(self, path: Path, alt: str, caption: str = "") -> str:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        return (
            f"<figure><img alt='{escape(alt, quote=True)}' src='data:image/png;base64,{data}'>"
            f"{below}</figure>"
        )

    def _png(self, name: str) -> Path:
        return self._output / f"{name}.png"

    def _results(self) -> str:
        primary = [(run.label, grouped_rows(primary_rows(run.rows))) for run in self._runs]
        table = comparison_table(primary) if len(primary) > 1 else results_table(primary[0][1])
        chosen = [
            (label, split_rows(run, rows)[1])
            for run, (label, rows) in zip(self._runs, primary, strict=True)
        ]
        path = draw_intervals(chosen, self._png("intervals"))
        every = "".join(
            f"<h3>{escape(run.label)}</h3>{metrics_table(run.rows)}" for run in self._runs
        )
        return (
            "<p class='note'>The primary metric of each task. An interval is a bootstrap over "
            "groups (patients, donors, subjects); <b>beats</b> means that the paired interval of "
            "the difference on the same records excludes 0 on the better side. * marks intervals "
            "over samples: fewer than ten groups, or splits that share groups; they are too narrow "
            f"for a new group.</p>{table}"
            + self._figure(
                path,
                "Each result with its interval and its baselines",
                "Dots are the model, whiskers its interval, grey marks the baselines on the same "
                "records; the table names each task's trivial baseline.",
            )
            + f"<details><summary>All metrics</summary>{every}</details>"
        )

    def _predictions(self, run: RunData, mark: str) -> str:
        """Confusion matrices of classes in pairs, then scatters of values, then labels."""
        pairs, wide = [], []
        for found in run.predictions:
            source, _, task = found.stem.rpartition("--")
            caption = f"{task}, {source}, {found.split}: {len(found.targets):,} records"
            stem = f"{found.split}-{_slug(found.stem)}"
            if found.kind == "classes":
                path = draw_confusion(found, self._png(f"{mark}confusion-{stem}"))
                pairs.append(self._figure(path, f"Confusion matrix of {caption}", caption))
            elif found.kind == "values":
                path = draw_scatter(found, self._png(f"{mark}scatter-{stem}"))
                columns = len(found.class_names)
                if columns > MAX_COLUMNS:
                    caption += f"; the first {MAX_COLUMNS} of {columns} columns"
                single = pairs if columns == 1 else wide
                single.append(self._figure(path, f"Prediction against truth of {caption}", caption))
            else:
                path = draw_labels(found, self._png(f"{mark}labels-{stem}"))
                wide.append(
                    self._figure(path, f"Figures by label of {caption}", caption)
                    + labels_table(label_figures(found))
                )
        if not pairs and not wide:
            return "<p class='note'>No predictions are stored.</p>"
        return (
            "<p class='note'>Confusion: rows are the truth, columns the prediction; numbers are "
            "records, shades their share of the row. Values: each dot is a record, on the dashed "
            "line prediction and truth are equal. Labels: records where the label is not known "
            "are left out.</p>"
            f"<div class='pair'>{''.join(pairs)}</div>{''.join(wide)}"
        )

    def _curves(self, run: RunData, mark: str) -> str:
        if not logged(run.curves):
            return "<p class='note'>The run folder holds no training log.</p>"
        figures = []
        for task in tasks_of(run):
            path = draw_learning_curves(run, task, self._png(f"{mark}curves-{_slug(task)}"))
            figures.append(self._figure(path, f"Learning curves of {task}"))
        return (
            "<p class='note'>Left: loss of each modality, as logged (faint) and as a running mean. "
            "Right: the primary metric on validation records; dashed, what the trivial "
            f"predictor scores on the evaluated split.</p>{''.join(figures)}"
        )

    def _fill(self, run: RunData, mark: str) -> str:
        path = draw_fill(run, self._png(f"{mark}fill"))
        if path is None:
            return "<p class='note'>No fill rates were logged.</p>"
        return (
            "<p class='note'>How much of the fixed shapes holds data: the rest is padding that is "
            f"computed and thrown away.</p>{self._figure(path, 'Fill rates over steps')}"
        )

    def _samples(self, run: RunData, mark: str) -> str:
        parts = []
        for sheet in run.samples:
            for modality, shown in by_modality(sheet).items():
                title = f"{modality}: {sheet.sheet['task']}, {sheet.sheet['source']}"
                parts.append(f"<h3>{escape(title)}</h3>")
                if shown[0][1]["kind"] == "text":
                    parts.append(text_cards(sheet, shown))
                    continue
                path = self._png(f"{mark}samples-{_slug(sheet.stem)}-{_slug(modality)}")
                draw_samples(sheet, shown, path)
                parts.append(self._figure(path, f"Sample records, {title}"))
        if not parts:
            return "<p class='note'>No samples are stored; add the evaluator samples.</p>"
        return (
            "<p class='note'>Records drawn by the run's seed, not picked. ✓ and blue: the model is "
            "right (of labels: all that are known); ✗ and orange: it is not; numbers are neither. "
            "The figure behind a class is the probability of what the model said, from all "
            "modalities of the record.</p>" + "".join(parts)
        )


def _lead(runs: Sequence[RunData]) -> str:
    out = []
    for run in runs:
        rows = split_rows(run, primary_rows(run.rows))[1]
        name = f"<b>{escape(run.label)}</b>: " if len(runs) > 1 else ""
        out.append(f"<p class='lead'>{name}{escape(_summary(rows))}</p>")
        if len(runs) == 1:
            out.append(_facts(run))
    return "".join(out)


def _summary(rows: Sequence[ResultRow]) -> str:
    plain = [row for row in rows if "keep:" not in row.protocol]
    trivial = [row for row in plain if row.is_trivial]
    text = f"{_beaten(trivial)} results beat the trivial baseline"
    simple = [row for row in plain if row.baseline_name == "logistic_regression"]
    if simple:
        text += f"; {_beaten(simple)} beat logistic regression on simple features"
    fused = [row for row in rows if row.baseline_name.startswith(BEST_SINGLE)]
    if fused:
        text += f"; {_beaten(fused)} combinations beat their best single modality"
    return text + "."


def _beaten(rows: Sequence[ResultRow]) -> str:
    return f"{sum(row.beats for row in rows)} of {len(rows)}"


def _facts(run: RunData) -> str:
    row = run.rows[0]
    split = split_rows(run, run.rows)[0]
    facts = {
        "method": row.method,
        "seed": row.seed,
        "steps": f"{row.checkpoint:,}",
        "split": split,
        "config": row.config_hash,
    }
    if "num_params" in run.manifest:
        facts["parameters"] = f"{run.manifest['num_params']:,}"
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in facts.items()
    )
    return f"<dl class='facts'>{items}</dl>"


def _about(run: RunData) -> str:
    """Provenance. Of the manifest only what names no place on a machine."""
    manifest = run.manifest
    row = run.rows[0]
    lines: list[tuple[str, object]] = [
        ("method", row.method),
        ("seed", row.seed),
        ("checkpoint", f"step {row.checkpoint}"),
        ("config hash", row.config_hash),
    ]
    for key, name in (("git_commit", "commit"), ("num_params", "parameters")):
        if key in manifest and manifest[key] is not None:
            lines.append((name, manifest[key]))
    for key, name in (("mesh", "mesh"), ("packages", "packages")):
        if key in manifest:
            lines.append((name, ", ".join(f"{k} {v}" for k, v in manifest[key].items())))
    parts = [facts_table(("what", "value"), lines)]
    if "datasets" in manifest:
        hashes = [(name, str(digest)[:16]) for name, digest in manifest["datasets"].items()]
        parts.append(f"<h3>Data sets</h3>{facts_table(('source', 'content hash'), hashes)}")
    return "".join(parts)


def _slug(text: str) -> str:
    """A file name and an anchor: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^\w.\-]+", "_", text, flags=re.ASCII).strip("_") or "run"
