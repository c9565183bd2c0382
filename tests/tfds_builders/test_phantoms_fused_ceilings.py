"""phantoms: ceilings of expression and of questions, and the table of all fused tasks.

Measured from the forward models as in `test_phantoms_image_ceilings`.
"""

from __future__ import annotations

import functools
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from tests.tfds_builders.phantom_posteriors import (
    additive_log_likelihood,
    group_mean,
    normalise,
    standard_error,
    with_offsets,
)
from tfds_builders import phantoms
from tfds_builders.phantoms import genomics, questions, scrna, xray
from tfds_builders.phantoms.ceilings import ceilings, metrics_of_ceilings, subset_ceilings
from tfds_builders.phantoms.patient import make_patients

SEED = 21
NUM_IMAGES = 800


@functools.cache
def patients(number: int = NUM_IMAGES):
    return make_patients(SEED, np.arange(number))


# --------------------------------------------------------------------- expression: Pearson


def found_motifs(windows: list[str], motifs: tuple[str, ...]) -> np.ndarray:
    return np.array([[motif in window for motif in motifs] for window in windows])


def predicted_levels(block, use_window: bool, use_cell: bool) -> np.ndarray:
    """E[level | what is used], [n, 6], from the records alone."""
    windows = genomics.render(block)
    lineage = 2.0 * found_motifs(windows, genomics.LINEAGE_MOTIFS)[:, genomics.LINEAGES] - 1
    motif = 1.0 * found_motifs(windows, (genomics.STATE_MOTIF,))[:, 0]
    if not use_window:
        lineage, motif = 0 * lineage, np.full(len(windows), 0.5)
    active = np.full(len(windows), 0.5)
    if use_cell:
        rows = [scrna.PANEL.index(symbol) for symbol in scrna.INTERFERON.split()]
        counts = genomics.render_cells(block)[:, rows]
        log_p = [
            scipy.stats.nbinom.logpmf(
                counts, scrna.DISPERSION, scrna.DISPERSION / (scrna.DISPERSION + rate)
            ).sum(axis=1)
            for rate in genomics.STATE_INTERFERON_RATES
        ]
        posterior = normalise(np.stack(log_p, axis=1))[:, 1]
        active = np.where(genomics.has_cell(block) == 1, posterior, active)
    effect = genomics.STATE_LEVEL * motif * active
    return genomics.BASE_LEVEL + genomics.LINEAGE_LEVEL * lineage + effect[:, None]


def column_pearson(predicted: np.ndarray, targets: np.ndarray) -> float:
    out = []
    for column in range(targets.shape[1]):
        known = np.isfinite(targets[:, column])
        if np.ptp(predicted[known, column]) == 0:
            return 0.0  # a constant correlates with nothing
        out.append(np.corrcoef(predicted[known, column], targets[known, column])[0, 1])
    return float(np.mean(out))


@pytest.mark.parametrize("subset", ["genomics", "scrna", "genomics+scrna", "all"])
def test_expression_has_its_ceilings(subset: str):
    block = patients(4000)
    use = "genomics+scrna" if subset == "all" else subset
    predicted = predicted_levels(block, "genomics" in use, "scrna" in use)
    targets = genomics.targets(block)
    if subset == "all":
        ceiling = ceilings()["expression"]
    else:  # complete cases: records with both
        both = genomics.has_cell(block) == 1
        predicted, targets = predicted[both], targets[both]
        assert (np.isfinite(targets).sum(axis=1) == 1).all()
        ceiling = subset_ceilings()["expression"][subset]
    error = 3 * (1 - ceiling**2) / np.sqrt(np.isfinite(targets).sum())
    assert abs(column_pearson(predicted, targets) - ceiling) < max(error, 1e-9)


# -------------------------------------------------------------------------- vqa: questions


def view_posterior(images: np.ndarray) -> np.ndarray:
    """p(no shadow; shadow at each place | view), [n, 1 + 16], a shadow as likely as not."""
    shown = [c * s for s, c in itertools.product(xray.shadows(), xray.SHADOW_CONTRASTS)]
    objects = np.stack([np.zeros_like(shown[0]), *shown])
    places = len(xray.SHADOW_CENTRES)
    groups = np.append(0, 1 + np.repeat(np.arange(places), len(xray.SHADOW_CONTRASTS)))
    scenes = with_offsets(xray.chests(), xray.SITE_OFFSETS)
    log_p = additive_log_likelihood(images, scenes, objects, xray.NOISE_SD)
    return normalise(group_mean(log_p, groups) + np.log([0.5] + [0.5 / places] * places))


def answer_from(question: questions.Question, posterior: np.ndarray) -> str:
    """The answer whose views are the most probable, by the words of its answers alone."""
    x, y = np.array(xray.SHADOW_CENTRES).T
    left, right, upper, lower = x < 0, x > 0, y < 0, y > 0
    if not question.closed:
        masks = {
            "left lung": left,
            "right lung": right,
            "upper zone": upper,
            "lower zone": lower,
            "upper left": upper & left,
            "lower left": lower & left,
            "upper right": upper & right,
            "lower right": lower & right,
        }
        return max(question.answers, key=lambda answer: posterior[1:][masks[answer]].sum())
    asked = question.wordings[0]
    yes = left if "left" in asked else upper if "upper" in asked else np.ones(len(x), bool)
    return (
        "yes"
        if posterior[1:][yes].sum()
        > 0.5 * (1.0 if asked == "Is there a shadow?" else posterior[1:].sum())
        else "no"
    )


def test_view_and_question_give_the_answer_up_to_the_ceiling():
    block = patients()
    posterior, asked = view_posterior(questions.render(block)), questions.render_text(block)
    right = []
    for row, (kind, answer) in enumerate(
        zip(questions.kinds(block), questions.answers(block), strict=True)
    ):
        (question,) = [q for q in questions.QUESTIONS if asked[row] in q.wordings]
        assert question is questions.QUESTIONS[kind]  # the words tell what is asked
        right.append(answer_from(question, posterior[row]) == question.answers[answer])
    ceiling = ceilings()["vqa"]
    assert abs(np.mean(right) - ceiling) < 3 * standard_error(ceiling, len(right))
    assert ceilings()["vqa"] == subset_ceilings()["vqa"]["text+xray"] == 0.88


@pytest.mark.parametrize("subset", ["xray", "text"])
def test_questions_need_view_and_words(subset: str):
    block = patients(60_000)
    table: dict[tuple, dict[str, int]] = {}
    shown, asked = questions.factors(block), questions.render_text(block)
    for kind, answer, view, words in zip(
        questions.kinds(block), questions.answers(block), shown.tolist(), asked, strict=True
    ):
        question = questions.QUESTIONS[kind]
        seen = (tuple(view) if view[0] else (0,), question.closed) if subset == "xray" else (words,)
        counts = table.setdefault(seen, {})
        text = question.answers[answer]
        counts[text] = counts.get(text, 0) + 1
    # The most frequent answer of everything that can be told apart, counted.
    accuracy = sum(max(counts.values()) for counts in table.values()) / len(asked)
    ceiling = subset_ceilings()["vqa"][subset]
    # Picking the most frequent of a count is biased upwards by less than half a point here.
    assert -3 * standard_error(ceiling, len(asked)) < accuracy - ceiling < 0.012


# ------------------------------------------------------------------------- the whole table


def test_every_fused_ceiling_is_above_its_singles():
    for task, subsets in subset_ceilings().items():
        singles = {name: value for name, value in subsets.items() if "+" not in name}
        (fused,) = [value for name, value in subsets.items() if "+" in name]
        assert len(singles) == 2, task
        assert fused > max(singles.values()) + 0.1, task
    assert set(metrics_of_ceilings()) == set(ceilings())


def test_the_readme_states_the_synergies_of_every_fused_task():
    text = Path(phantoms.__file__).with_name("README.md").read_text("utf-8")
    for task, subsets in subset_ceilings().items():
        (row,) = re.findall(rf"^\| {task} \(.*$", text, re.MULTILINE)
        for name, value in subsets.items():
            assert f"{name.replace('+', ' + ')} {round(value, 4):g}" in row
        best = max(value for name, value in subsets.items() if "+" not in name)
        assert f"**{round(max(subsets.values()) - best, 4)}**" in row


def test_new_ceilings_by_hand():
    found = subset_ceilings()
    assert found["radiographic"] == pytest.approx(
        {"xray": (0.92 + 0.6) / 2, "ct": (0.92 + 0.6) / 2, "ct+xray": 0.92}
    )
    # Away from the ends of the range: P(|normal of 8 months| <= 12); the ends add a little.
    middle = scipy.stats.norm.cdf(1.5) - scipy.stats.norm.cdf(-1.5)
    assert middle < found["bone_age"]["text+xray"] < middle + 0.03
    assert found["bone_age"]["text"] == pytest.approx(24 / 192)
    assert found["expression"] == pytest.approx(
        {
            "genomics+scrna": np.sqrt(1.72 / 2.08),
            "genomics": np.sqrt(1.0 / 2.08),
            "scrna": np.sqrt(0.36 / 2.08),
        }
    )
    assert found["vqa"]["text"] == pytest.approx((5 * 0.5 + 0.25) / 6)
