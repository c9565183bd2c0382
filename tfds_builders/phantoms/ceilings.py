"""What the best predictor of a task can reach, from the channel label -> presentation.

With uniform labels over Y classes and a channel p(z|y), no classifier of a record x that depends
on the label through the presentation z only can beat

    C = sum_z max_y p(z|y) / Y                (label - presentation - record is a Markov chain)

and the forward models show z almost perfectly, so C is also reached: README.md derives the figures
of all tasks, and tests measure them with the posterior of every forward model.
"""

from __future__ import annotations

import itertools

import numpy as np
import scipy.special
from jaxtyping import Float

from tfds_builders.phantoms import ct, genomics, hand, questions
from tfds_builders.phantoms.patient import CHANNELS

EXPRESSION, BONE_AGE, VQA, RADIOGRAPHIC = "expression", "bone_age", "vqa", "radiographic"
# Variances of expression's terms: of the lineage (+1 or -1), of u v (both 1 or 0, evenly), and of
# u / 2, which is what one of them alone tells of u v.
_LINEAGE_VARIANCE = genomics.LINEAGE_LEVEL**2
_BOTH_VARIANCE = genomics.STATE_LEVEL**2 * 3 / 16
_ONE_VARIANCE = genomics.STATE_LEVEL**2 / 16


def bayes_accuracy(channel: Float[np.ndarray, "Y Z"]) -> float:
    """Accuracy of the best guess of a uniform label from what its channel shows."""
    return float(channel.max(axis=0).sum() / channel.shape[0])


def ceilings() -> dict[str, float]:
    """Task -> best expected `metrics_of_ceilings` from everything that a record holds.

    `structure` has none: the sequence determines the fold, so only the metric's own maximum bounds
    it.
    """
    subsets = subset_ceilings()
    return {
        **{task: bayes_accuracy(channel) for task, channel in CHANNELS.items()},
        RADIOGRAPHIC: subsets[RADIOGRAPHIC]["ct+xray"],
        BONE_AGE: subsets[BONE_AGE]["text+xray"],
        EXPRESSION: _expression_of_all_records(),
        VQA: subsets[VQA]["text+xray"],
    }


def metrics_of_ceilings() -> dict[str, str]:
    """Task -> the metric that its ceiling bounds."""
    return {
        **dict.fromkeys(CHANNELS, "accuracy"),
        RADIOGRAPHIC: "label_accuracy",
        BONE_AGE: "accuracy_within_12_months",
        EXPRESSION: "pearson",
        VQA: "exact_match",
    }


def subset_ceilings() -> dict[str, dict[str, float]]:
    """Fused task -> ceiling of each modality alone and of all together, on records with all."""
    channel = CHANNELS["disease"].reshape(-1, 2, 2)
    return {
        "disease": {
            "xray": bayes_accuracy(channel.sum(axis=2)),
            "text": bayes_accuracy(channel.sum(axis=1)),
            "text+xray": bayes_accuracy(CHANNELS["disease"]),
        },
        RADIOGRAPHIC: {
            "xray": _findings(ct.IN_VIEW),
            "ct": _findings(tuple(not shown for shown in ct.IN_VIEW)),
            "ct+xray": _findings((True,) * len(ct.FINDINGS)),
        },
        BONE_AGE: {
            "xray": _bone_age(hand.SEX_SHIFT_MONTHS),
            "text": 2 * hand.WITHIN_MONTHS / (hand.MAX_MONTHS - hand.MIN_MONTHS),
            "text+xray": _bone_age(hand.SEX_SHIFT_MONTHS[:1]),
        },
        EXPRESSION: {
            "genomics": _pearson(_LINEAGE_VARIANCE + _ONE_VARIANCE),
            "scrna": _pearson(_ONE_VARIANCE),
            "genomics+scrna": _pearson(_LINEAGE_VARIANCE + _BOTH_VARIANCE),
        },
        VQA: _questions(),
    }


def _findings(shown: tuple[bool, ...]) -> float:
    """Mean over the labels: from its presentation where it is shown, the more frequent value else.

    Each label's best guess is the presented value as long as that is right more often than not.
    """
    p, wrong = ct.PREVALENCE, ct.WRONG
    seen = max(p * (1 - wrong), (1 - p) * wrong) + max((1 - p) * (1 - wrong), p * wrong)
    return float(np.mean([seen if one else max(p, 1 - p) for one in shown]))


def _bone_age(shifts: tuple[float, ...], step: float = 0.25) -> float:
    """P(|guess - age| <= 12 months) of the best guess from the maturity m, by integration.

    p(age, m) = uniform(age) * mean_shift normal(m - age - shift); the share that the best guess
    catches is the integral over m of max_guess integral_{guess - 12}^{guess + 12} p(age, m) d age.
    """
    low, high, sd = hand.MIN_MONTHS, hand.MAX_MONTHS, hand.MATURITY_SD_MONTHS
    reach = max(abs(shift) for shift in shifts) + 6 * sd
    m = np.arange(low - reach, high + reach, step)[:, None]
    edges = np.arange(low - hand.WITHIN_MONTHS, high + hand.WITHIN_MONTHS + step / 2, step)
    ages = np.clip(edges, low, high)
    cdf = np.mean([scipy.special.ndtr((ages - (m - shift)) / sd) for shift in shifts], axis=0)
    window = round(2 * hand.WITHIN_MONTHS / step)
    caught = (cdf[:, window:] - cdf[:, :-window]).max(axis=1)
    return float(caught.sum() * step / (high - low))


def _pearson(explained: float) -> float:
    """Correlation of E[level | record] with the level, which is that plus independent parts."""
    total = _LINEAGE_VARIANCE + _BOTH_VARIANCE + genomics.NOISE_SD**2
    return float(np.sqrt(explained / total))


def expression_of_windows() -> float:
    """Of records that hold a window and no cell."""
    explained = _LINEAGE_VARIANCE + _ONE_VARIANCE
    return float(np.sqrt(explained / (explained + genomics.NOISE_SD**2)))


def _expression_of_all_records() -> float:
    """Correlation in a column over records with a cell and records of the window alone.

    A window alone fills every column, a record with a cell one of them; all means are equal, so
    variances add by these shares.
    """
    alone = 1 / genomics.WINDOW_ONLY
    fused = (1 - alone) / len(genomics.LINEAGES)
    share = fused / (alone + fused)
    explained = _LINEAGE_VARIANCE + share * _BOTH_VARIANCE + (1 - share) * _ONE_VARIANCE
    return float(np.sqrt(explained / (explained + genomics.NOISE_SD**2)))


def _questions() -> dict[str, float]:
    """Share of right answers: given both, the question alone, and the view alone.

    The view alone leaves the kind of question open, but for whether candidates come with it.
    """
    number = len(questions.QUESTIONS)
    joint: dict[tuple[tuple[int, ...], bool], dict[str, float]] = {}
    for question in questions.QUESTIONS:
        size = len(question.answers)
        wrong = (1 - questions.TYPICAL) / (size - 1)
        for right, shown in itertools.product(range(size), repeat=2):
            p = (questions.TYPICAL if right == shown else wrong) / size / number
            views = [
                view
                for view in itertools.product((0, 1), repeat=3)
                if all(w in (None, v) for v, w in zip(view, question.shows[shown], strict=True))
            ]
            # Without a shadow its side and zone cannot be seen: one view, the sum of four.
            for view in views:
                seen = (view if view[0] else (0, 0, 0), question.closed)
                answers = joint.setdefault(seen, {})
                answer = question.answers[right]
                answers[answer] = answers.get(answer, 0.0) + p / len(views)
    return {
        "xray": float(sum(max(answers.values()) for answers in joint.values())),
        "text": float(np.mean([1 / len(q.answers) for q in questions.QUESTIONS])),
        "text+xray": questions.TYPICAL,
    }
