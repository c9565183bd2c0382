"""Hand view and a line of text: ossification centres grow with maturity, sex shifts maturity.

    maturity = age in months + 14 (female) or - 14 (male) + normal noise of 8 months

The view shows maturity only, the text tells sex only; age needs both.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
from jaxtyping import Float, Int, UInt8

from tfds_builders.phantoms import rasters
from tfds_builders.phantoms.patient import Patients

SPACING_MM = 6.0
MIN_MONTHS, MAX_MONTHS = 24.0, 216.0
SEX_SHIFT_MONTHS = (14.0, -14.0)  # in the order of `SEXES`
MATURITY_SD_MONTHS = 8.0
WITHIN_MONTHS = 12.0
MATURITIES = np.arange(-30, 271)  # months; noise ends at 4.88 standard deviations
NOISE_SD = 7.0
SITE_OFFSETS = (0.0, 5.0, -5.0)
CENTRE_LEVEL = 85.0
_GROWTH_MONTHS = 70.0  # from the first sign of a centre to its full size
# (x, y) in pixels, in the order of appearance: wrist, then finger joints.
_CENTRES = (
    (-2.0, 9.0),
    (2.0, 9.0),
    (-6.0, 1.0),
    (6.0, 1.0),
    (-2.0, 1.0),
    (2.0, 1.0),
    (-6.0, 9.0),
    (6.0, 9.0),
    (-10.0, -6.0),
    (-5.0, -6.0),
    (0.0, -6.0),
    (5.0, -6.0),
    (10.0, -6.0),
    (0.0, 13.0),
)
_PERSONS = (("female", "a girl, female"), ("male", "a boy, male"))
_LINES = (
    "Hand radiograph of {person}. Please tell the bone age.",
    "Left hand, one view. Patient: {person}.",
    "{person}; view of the hand for growth.",
    "Growth check. Sex: {person}.",
)


def months(patients: Patients) -> Float[np.ndarray, "B"]:
    """Age in months, uniform."""
    share = patients.draws.uniform("hand/months", 1)[:, 0]
    return MIN_MONTHS + (MAX_MONTHS - MIN_MONTHS) * share


def maturity(patients: Patients) -> Int[np.ndarray, "B"]:
    """What the view shows, in whole months."""
    shift = np.asarray(SEX_SHIFT_MONTHS)[patients.sex]
    noise = MATURITY_SD_MONTHS * patients.draws.normal("hand/maturity", 1)[:, 0]
    return np.rint(months(patients) + shift + noise).astype(np.int64)


@functools.cache
def hands() -> Float[np.ndarray, "A S S"]:
    """All hands without ossification centres: width of the fingers, density."""
    return np.stack([_hand(*shape) for shape in itertools.product((1.8, 2.1), (70.0, 80.0))])


def _hand(finger: float, level: float) -> np.ndarray:
    palm = rasters.soft_ellipse((0.0, 6.0), (10.5, 9.5), edge=0.8)
    shape = palm
    for x in (-10.0, -5.0, 0.0, 5.0, 10.0):
        digit = rasters.soft_ellipse((x, -6.0), (finger, 9.0 - 0.03 * x**2), edge=0.6)
        shape = np.maximum(shape, digit)
    return 25 + level * shape


@functools.cache
def centres() -> Float[np.ndarray, "M S S"]:
    """What the ossification centres add at each of `MATURITIES`."""
    onsets = np.linspace(-40, 210, len(_CENTRES))
    out = np.zeros((len(MATURITIES), rasters.SIDE, rasters.SIDE))
    for centre, onset in zip(_CENTRES, onsets, strict=True):
        grown = np.clip((MATURITIES - onset) / _GROWTH_MONTHS, 0, 1)
        for row in np.flatnonzero(grown):
            radius = 1.0 + 1.2 * grown[row]
            out[row] += CENTRE_LEVEL * grown[row] * rasters.soft_ellipse(centre, (radius, radius))
    return out


def render(patients: Patients) -> UInt8[np.ndarray, "B S S"]:
    """The hand views of a block of patients, 8-bit grey."""
    draws = patients.draws
    image = hands()[draws.choice("hand/shape", len(hands()))]
    image = image + centres()[maturity(patients) - MATURITIES[0]]
    image += np.asarray(SITE_OFFSETS)[patients.site][:, None, None]
    noise = draws.normal("hand/noise", rasters.SIDE**2).reshape(image.shape)
    return rasters.to_grey(image + NOISE_SD * noise)


def render_text(patients: Patients) -> list[str]:
    """The line that tells the sex."""
    lines = patients.draws.choice("hand/line", len(_LINES))
    words = patients.draws.choice("hand/person", len(_PERSONS[0]))
    persons = [_PERSONS[sex][word] for sex, word in zip(patients.sex, words, strict=True)]
    return [_LINES[line].format(person=who) for line, who in zip(lines, persons, strict=True)]
