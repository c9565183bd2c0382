"""A run folder as training leaves it, generated: five tasks, one of them over two modalities."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from multimed_jax.metrics.baselines import majority_probabilities
from multimed_jax.metrics.classification import weighted_classification
from multimed_jax.metrics.intervals import bootstrap_draws, make_resampling, percentile_interval
from multimed_jax.results import ResultRow, write_rows
from multimed_jax.run_folder import write_json
from tests.report.synthetic_kinds import add_kinds

SECRET_FOLDER = "/home/someone/private/data"
HOSTILE = "<script>alert('x')</script> & $\\frac{1}{0}$"

TUMOR = ("glioma", "meningioma", "no tumor", "pituitary")
CELLS = (
    *("CD14+ monocyte", "CD19+ B", "CD34+", "CD4+ T helper 2", "CD4+/CD25 T reg"),
    *("CD4+/CD45RA+/CD25- naive T", "CD4+/CD45RO+ memory", "CD56+ NK", "CD8+ cytotoxic T"),
    *("CD8+/CD45RA+ naive cytotoxic", "dendritic"),
)
# (source, task, modalities, class names, n, groups, how far the model is above chance)
PLACES = (
    ("phantoms/quickstart:1.0.0", "tumor", ("mri",), TUMOR, 900, 300, 1.6),
    (
        "phantoms/quickstart:1.0.0",
        "disease",
        ("xray", "text"),
        ("none", "mild", "severe"),
        420,
        140,
        1.2,
    ),
    ("phantoms/quickstart:1.0.0", "motor", ("eeg",), ("left", "right", "feet"), 300, 8, 0.1),
    ("pbmc68k/native:1.0.0", "cell_type", ("scrna",), CELLS, 600, 60, 2.2),
    ("notes:1.0.0", "disease", ("text",), (HOSTILE, "digestive"), 200, 200, 1.0),
)


def make_run(folder: Path, seed: int = 0, steps: int = 400, method: str = "multimodal") -> Path:
    """Writes the folder; another seed gives other figures."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    write_json(
        folder / "manifest.json",
        {
            "config": {"data_dir": SECRET_FOLDER, "method": method, "seed": seed},
            "config_hash": "0123456789ab",
            "git_commit": "f" * 40,
            "datasets": {source: "ab" * 32 for source, *_ in PLACES},
            "packages": {"jax": "0.10.2", "numpy": "2.3.0"},
            "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
            "num_params": 1_234_567,
        },
    )
    _write_curves(folder / "metrics.jsonl", rng, steps)
    for place in PLACES:
        _write_place(folder, place, rng, seed, steps, method)
    add_kinds(folder, seed, steps, method)
    return folder


def _write_curves(path: Path, rng: np.random.Generator, steps: int) -> None:
    lines = []
    for step in range(5, steps + 1, 5):
        done = step / steps
        for _, task, modalities, names, *_ in PLACES[:4]:
            for modality in modalities:
                value = np.log(len(names)) * (0.35 + 0.65 * np.exp(-4 * done))
                lines.append((step, f"loss/{task}/{modality}", value + 0.08 * rng.normal()))
        lines.append((step, "fill/token", 0.93 + 0.02 * rng.normal()))
        for stream, mean in (("mri.slice", 0.78), ("eeg.trial", 0.7), ("text.word", 0.82)):
            lines.append((step, f"fill/stream/{stream}", mean + 0.04 * rng.normal()))
        if step % 50 == 0:
            for source, task, _, names, *_ in PLACES:
                value = 0.75 - (0.75 - 1 / len(names)) * np.exp(-3 * done) + 0.02 * rng.normal()
                lines.append((step, f"accuracy/validation/{source}/{task}", value))
    lines.append((steps, "loss/tumor/mri", None))
    path.write_text(
        "".join(json.dumps({"step": s, "name": n, "value": v}) + "\n" for s, n, v in lines)
        + '{"step": 999, "na'
    )


def _write_place(folder, place, rng, seed, steps, method) -> None:
    source, task, modalities, names, n, groups, skill = place
    targets = rng.integers(0, len(names), n)
    logits = rng.normal(size=(n, len(names)))
    logits[np.arange(n), targets] += skill
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    group = np.arange(n) % groups
    stem = f"{source.replace('/', '_').replace(':', '_')}--{task}"
    (folder / "eval" / "test").mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "eval" / "test" / f"{stem}.npz",
        probabilities=probabilities,
        targets=targets,
        rows=np.arange(n),
        groups=group,
        class_names=np.array(names),
    )
    resampling = make_resampling(group, resamples=100, seed=seed)

    def measured(values):
        statistic = weighted_classification(values, targets)
        once = {k: float(v[0]) for k, v in statistic(np.ones((1, n), int)).items()}
        return once, bootstrap_draws(statistic, resampling)

    ours = measured(probabilities)
    weak = np.exp(0.5 * logits + 0.9 * rng.normal(size=logits.shape))
    weak /= weak.sum(1, keepdims=True)
    others = {
        "majority": measured(majority_probabilities(np.bincount(targets), n)),
        "logistic_regression": measured(weak),
    }

    def row(metric, name, protocol="full", baseline=None):
        value, drawn = (baseline, baseline) if baseline else [m[metric] for m in others[name]]
        own = percentile_interval(ours[1][metric], 0.95, resampling.unit)
        gap = percentile_interval(ours[1][metric] - drawn, 0.95, resampling.unit)
        return ResultRow(
            method=method,
            seed=seed,
            dataset=source,
            task=task,
            split="test",
            protocol=protocol,
            metric=metric,
            value=ours[0][metric],
            n=n,
            groups=groups,
            interval=(own.low, own.high),
            interval_unit=own.unit,
            baseline=float(value),
            baseline_name=name,
            difference=ours[0][metric] - float(value),
            difference_interval=(gap.low, gap.high),
            checkpoint=steps,
            config_hash="0123456789ab",
        )

    rows = [row(metric, "majority") for metric in ours[0]]
    rows.append(row("accuracy", "logistic_regression"))
    if source.startswith("phantoms"):
        rows.append(row("accuracy", "bayes", baseline=min(0.95, ours[0]["accuracy"] + 0.04)))
    if len(modalities) > 1:
        both = "keep:" + "+".join(sorted(modalities))
        rows += [row("accuracy", "majority", f"keep:{name}") for name in modalities]
        rows += [row("accuracy", "majority", both)]
        rows += [row("accuracy", "best_single:xray", both, baseline=ours[0]["accuracy"] - 0.1)]
        for keep, optimum in (("xray", 0.7), ("text", 0.6), ("text+xray", 0.82)):
            rows.append(row("accuracy", "bayes", f"keep:{keep}", baseline=optimum))
    write_rows(folder / "results.jsonl", rows)
    _write_samples(folder, place, stem, rng, probabilities, targets)


def _write_samples(folder, place, stem, rng, probabilities, targets) -> None:
    source, task, modalities, names, *_ = place
    arrays, records = {}, []
    for row in range(8):
        previews = []
        for modality in modalities:
            preview, array = _preview(modality, row, rng)
            if array is not None:
                preview["array"] = f"row{row}_{modality}"
                arrays[preview["array"]] = array
            previews.append({"modality": modality, **preview})
        guess = int(probabilities[row].argmax())
        records.append(
            {
                "row": row,
                "sample_id": f"sample {row}",
                "truth": int(targets[row]),
                "prediction": guess,
                "probability": float(probabilities[row, guess]),
                "probability_of_truth": float(probabilities[row, targets[row]]),
                "previews": previews,
            }
        )
    sheet = {
        "source": source,
        "task": task,
        "split": "test",
        "class_names": list(names),
        "records": records,
    }
    out = folder / "eval" / "samples"
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{stem}.json").write_text(json.dumps(sheet))
    np.savez(out / f"{stem}.npz", **arrays)


def _preview(modality, row, rng):
    if modality in ("mri", "xray"):
        side = (96, 96) if row % 2 else (64, 96)
        y, x = np.mgrid[: side[0], : side[1]] / 96
        disc = 150 * ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.1)
        image = np.clip(disc + 20 * rng.normal(size=side) + 40, 0, 255).astype(np.uint8)
        return {"kind": "image", "labels": [], "unit": ""}, image
    if modality == "eeg":
        t = np.arange(640) / 160
        wave = 20 * np.sin(2 * np.pi * 10 * t)[:, None] * rng.uniform(0.3, 1, 8)
        traces = (wave + 8 * rng.normal(size=(640, 8))).astype(np.float32)
        names = ["FC3", "FC4", "C3", "Cz", "C4", "CP3", "CPz", "CP4"]
        return {"kind": "traces", "labels": names, "unit": "uV"}, traces
    if modality == "scrna":
        values = np.sort(rng.gamma(2, 1, 20))[::-1].astype(np.float32)
        labels = [f"{k:08x}" for k in rng.integers(0, 2**31, 20)]
        return {"kind": "bars", "labels": labels, "unit": "log1p(counts per 10k)"}, values
    text = f"{HOSTILE} A note, number {row}. " + "The lungs are clear. " * (3 + 40 * (row == 1))
    return {"kind": "text", "labels": [], "unit": "", "text": text}, None
