"""Chest CT with a chest view: four findings, two of which show in each.

    shown by the view   cardiomegaly (a wide heart), effusion (a bright base of a lung)
    shown by the CT     nodule (a dense ball in a lung), emphysema (holes of less density)

Labels are independent, a share presents wrongly and a share is not known (-1). Half of the CTs
are a slice [1, 32, 32], half a volume [8, 24, 24]; Hounsfield units, air -1000, water 0.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
from jaxtyping import Float, Int, Int16, UInt8

from tfds_builders.phantoms import rasters, xray
from tfds_builders.phantoms.patient import Patients

FINDINGS = ("cardiomegaly", "effusion", "nodule", "emphysema")
IN_VIEW = (True, True, False, False)
PREVALENCE = 0.4
WRONG = 0.08  # share of labels whose presentation is the opposite
UNKNOWN = 0.1  # share of labels that the record does not tell
NOISE_HU = 40.0
RANGE_HU = (-1024, 3071)  # of 12 bits, as scanners store them
SLICE_SIDE, VOLUME_SIDE, VOLUME_DEPTH = 32, 24, 8
SLICE_SPACING_MM = (5.0, 11.0, 11.0)  # depth, row, column
VOLUME_SPACING_MM = (20.0, 15.0, 15.0)
NODULE_HU, EMPHYSEMA_HU = 800.0, -190.0  # added to the lung
_LUNG_HU = -760.0
# Places as shares of half the image's side: (x, y); the second index of volumes is the depth.
NODULES = tuple(
    (side * x, y) for side, x, y in itertools.product((-1, 1), (0.4, 0.56), (-0.3, 0.3))
)
EMPHYSEMAS = tuple((side * 0.5, y) for side, y in itertools.product((-1, 1), (-0.25, 0.2)))
NODULE_DEPTHS = (1, 3, 5)  # first of two slices


def labels(patients: Patients) -> Int[np.ndarray, "B F"]:
    """1 where a patient has the finding, 0 where not."""
    return (patients.draws.uniform("ct/label", len(FINDINGS)) < PREVALENCE).astype(np.int64)


def presented(patients: Patients) -> Int[np.ndarray, "B F"]:
    """1 where the images show the finding."""
    wrong = patients.draws.uniform("ct/wrong", len(FINDINGS)) < WRONG
    return labels(patients) ^ wrong


def targets(patients: Patients) -> Int[np.ndarray, "B F"]:
    """The labels, -1 where the record does not tell."""
    unknown = patients.draws.uniform("ct/unknown", len(FINDINGS)) < UNKNOWN
    return np.where(unknown, -1, labels(patients))


def is_volume(patients: Patients) -> Int[np.ndarray, "B"]:
    """1 where the CT is a volume, 0 where it is a slice."""
    return patients.draws.choice("ct/volume", 2)


# ------------------------------------------------------------------------------- the view


@functools.cache
def view_objects() -> tuple[Float[np.ndarray, "S S"], Float[np.ndarray, "2 S S"]]:
    """What a wide heart adds to the view, and an effusion on either side."""
    heart = 55 * rasters.soft_ellipse((1.0, 5.0), (9.0, 4.2), edge=0.6)
    bases = [65 * rasters.soft_ellipse((side * 8.5, 9.5), (5.5, 3.0), edge=0.6) for side in (-1, 1)]
    return heart, np.stack(bases)


def render_views(patients: Patients) -> UInt8[np.ndarray, "B S S"]:
    """The chest views that belong to the CTs, 8-bit grey."""
    draws, shown = patients.draws, presented(patients)
    heart, bases = view_objects()
    image = xray.chests()[draws.choice("ct/chest", len(xray.chests()))]
    image = image + np.asarray(xray.SITE_OFFSETS)[patients.site][:, None, None]
    image += shown[:, 0, None, None] * heart
    image += shown[:, 1, None, None] * bases[draws.choice("ct/effusion", len(bases))]
    noise = draws.normal("ct/view_noise", rasters.SIDE**2).reshape(image.shape)
    return rasters.to_grey(image + xray.NOISE_SD * noise)


# --------------------------------------------------------------------------------- the CT


@functools.cache
def bodies(side: int, depth: int) -> Float[np.ndarray, "A D S S"]:
    """Chests without a finding in HU: size of the lungs, size of the heart."""
    shapes = itertools.product((0.95, 1.0, 1.05), (0.18, 0.24))
    return np.stack([_body(side, depth, *shape) for shape in shapes])


def _body(side: int, depth: int, size: float, heart: float) -> np.ndarray:
    half, slices = side / 2, []
    for at in np.linspace(-1, 1, depth) if depth > 1 else (0.0,):
        lung = size * (1 - 0.12 * at**2)  # lungs narrow towards both ends

        def ellipse(x: float, y: float, a: float, b: float) -> np.ndarray:
            return rasters.soft_ellipse((x * half, y * half), (a * half, b * half), side=side)

        body = ellipse(0, 0.05, 0.94, 0.8)
        lungs = ellipse(-0.48, 0, 0.34 * lung, 0.58 * lung)
        lungs = lungs + ellipse(0.48, 0, 0.34 * lung, 0.58 * lung)
        spine = ellipse(0, 0.6, 0.1, 0.12)
        middle = ellipse(0.04, -0.1, heart, heart)
        image = -1000 + 1040 * body + (_LUNG_HU - 40) * lungs * body
        slices.append(image + 350 * spine + 60 * middle * (1 - lungs))
    return np.stack(slices)


@functools.cache
def nodules(side: int, depth: int) -> Float[np.ndarray, "P D S S"]:
    """What a nodule adds at each place (and depth of a volume)."""
    half, out = side / 2, []
    for (x, y), first in itertools.product(NODULES, NODULE_DEPTHS if depth > 1 else (0,)):
        ball = np.zeros((depth, side, side))
        ball[first : first + 2] = NODULE_HU * rasters.soft_ellipse(
            (x * half, y * half), (2.0, 2.0), side=side
        )
        out.append(ball)
    return np.stack(out)


@functools.cache
def emphysemas(side: int, depth: int) -> Float[np.ndarray, "P D S S"]:
    """What emphysema adds at each place, through the whole depth."""
    half = side / 2
    holes = [
        EMPHYSEMA_HU
        * rasters.soft_ellipse((x * half, y * half), (0.26 * half, 0.36 * half), side=side)
        for x, y in EMPHYSEMAS
    ]
    return np.stack([np.broadcast_to(hole, (depth, side, side)) for hole in holes])


def render_slices(patients: Patients) -> Int16[np.ndarray, "B 1 S S"]:
    """One slice per patient, HU."""
    return _render(patients, "slice", SLICE_SIDE, 1)


def render_volumes(patients: Patients) -> Int16[np.ndarray, "B D S S"]:
    """One volume per patient, HU."""
    return _render(patients, "volume", VOLUME_SIDE, VOLUME_DEPTH)


def _render(patients: Patients, name: str, side: int, depth: int) -> np.ndarray:
    draws, shown = patients.draws, presented(patients)[:, :, None, None, None]
    hu = bodies(side, depth)[draws.choice(f"ct/{name}/body", len(bodies(side, depth)))]
    for finding, table in ((2, nodules(side, depth)), (3, emphysemas(side, depth))):
        place = draws.choice(f"ct/{name}/{FINDINGS[finding]}", len(table))
        hu = hu + shown[:, finding] * table[place]
    noise = draws.normal(f"ct/{name}/noise", hu[0].size).reshape(hu.shape)
    return np.rint(np.clip(hu + NOISE_HU * noise, *RANGE_HU)).astype(np.int16)
