"""Questions about a chest view: is there a shadow, on which side, in which zone.

A question asks for one factor of the shadow. Its answer is drawn first; a small share of views
presents another answer of the same question; what is not asked for is drawn at random. The words
of a question say nothing of its answer. Left and right are those of the image.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int, UInt8

from tfds_builders.phantoms import rasters, xray
from tfds_builders.phantoms.patient import Patients

TYPICAL = 0.88  # share of views that present the answer
YES_NO = ("yes", "no")


@dataclasses.dataclass(frozen=True)
class Question:
    """One kind of question.

    Attributes:
        answers: all that can be right, equally often.
        shows: (shadow, side, zone) that present each answer: 0/1, left/right, upper/lower;
            None where the factor may be anything.
        wordings: ways to ask it.
        closed: whether the answers are given with the question.
    """

    answers: tuple[str, ...]
    shows: tuple[tuple[int | None, int | None, int | None], ...]
    wordings: tuple[str, ...]
    closed: bool


QUESTIONS = (
    Question(
        YES_NO,
        ((1, None, None), (0, None, None)),
        (
            "Is there a shadow?",
            "Does the view show a shadow?",
            "Is a shadow present in this image?",
            "Can a shadow be seen?",
        ),
        closed=True,
    ),
    Question(
        YES_NO,
        ((1, 0, None), (1, 1, None)),
        (
            "Is the shadow on the left?",
            "Does the shadow lie in the left lung?",
            "Is it the left side that is affected?",
        ),
        closed=True,
    ),
    Question(
        YES_NO,
        ((1, None, 0), (1, None, 1)),
        (
            "Is the shadow in the upper zone?",
            "Does the shadow lie in the upper half?",
            "Is the upper zone affected?",
        ),
        closed=True,
    ),
    Question(
        ("left lung", "right lung"),
        ((1, 0, None), (1, 1, None)),
        (
            "Which side is the shadow?",
            "Which lung has the shadow?",
            "On what side does the shadow lie?",
        ),
        closed=False,
    ),
    Question(
        ("upper zone", "lower zone"),
        ((1, None, 0), (1, None, 1)),
        (
            "Which zone is the shadow in?",
            "What zone does the shadow lie in?",
            "Which zone has the shadow?",
        ),
        closed=False,
    ),
    Question(
        ("upper left", "lower left", "upper right", "lower right"),
        ((1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)),
        (
            "Where is the shadow?",
            "What is the place of the shadow?",
            "Where does the shadow lie?",
        ),
        closed=False,
    ),
)


def kinds(patients: Patients) -> Int[np.ndarray, "B"]:
    """Index into `QUESTIONS`."""
    return patients.draws.choice("questions/kind", len(QUESTIONS))


def answers(patients: Patients) -> Int[np.ndarray, "B"]:
    """The right answer, as an index into the question's answers."""
    return (patients.draws.uniform("questions/answer", 1)[:, 0] * _sizes(patients)).astype(np.int64)


def presented(patients: Patients) -> Int[np.ndarray, "B"]:
    """The answer that the view shows: the right one, or else any other alike."""
    sizes, right = _sizes(patients), answers(patients)
    uniform = patients.draws.uniform("questions/presented", 2).T
    other = (right + 1 + (uniform[1] * (sizes - 1)).astype(np.int64)) % sizes
    return np.where(uniform[0] < TYPICAL, right, other)


def factors(patients: Patients) -> Int[np.ndarray, "B 3"]:
    """(shadow, side, zone) of every view."""
    out = (patients.draws.uniform("questions/factor", 3) * 2).astype(np.int64)
    for row, (kind, shown) in enumerate(zip(kinds(patients), presented(patients), strict=True)):
        for factor, value in enumerate(QUESTIONS[kind].shows[shown]):
            if value is not None:
                out[row, factor] = value
    return out


def places() -> Int[np.ndarray, "P 2"]:
    """(side, zone) of each of `xray.SHADOW_CENTRES`."""
    return np.array([(int(x > 0), int(y > 0)) for x, y in xray.SHADOW_CENTRES])


def render(patients: Patients) -> UInt8[np.ndarray, "B S S"]:
    """The views of a block of patients, 8-bit grey."""
    draws, shown = patients.draws, factors(patients)
    of_zone = np.array(
        [
            [np.flatnonzero((places() == (side, zone)).all(axis=1)) for zone in (0, 1)]
            for side in (0, 1)
        ]
    )
    pick = draws.choice("questions/place", of_zone.shape[-1])
    place = of_zone[shown[:, 1], shown[:, 2], pick]
    contrast = shown[:, 0] * np.asarray(xray.SHADOW_CONTRASTS)[patients.severity]
    image = xray.chests()[draws.choice("questions/chest", len(xray.chests()))]
    image = image + contrast[:, None, None] * xray.shadows()[place]
    image += np.asarray(xray.SITE_OFFSETS)[patients.site][:, None, None]
    noise = draws.normal("questions/noise", rasters.SIDE**2).reshape(image.shape)
    return rasters.to_grey(image + xray.NOISE_SD * noise)


def render_text(patients: Patients) -> list[str]:
    """The questions of a block of patients."""
    uniform = patients.draws.uniform("questions/wording", 1)[:, 0]
    return [
        QUESTIONS[kind].wordings[int(share * len(QUESTIONS[kind].wordings))]
        for kind, share in zip(kinds(patients), uniform, strict=True)
    ]


def _sizes(patients: Patients) -> Int[np.ndarray, "B"]:
    return np.array([len(question.answers) for question in QUESTIONS])[kinds(patients)]
