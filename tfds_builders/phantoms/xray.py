"""Chest view: dark lungs in a bright body; one half of the disease, a shadow in a lung, shows here.

image = chest + site offset + shadow + white noise. The shadow says nothing of cough, and its side,
zone and density say nothing of the disease.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
from jaxtyping import Float, UInt8

from tfds_builders.phantoms import rasters
from tfds_builders.phantoms.patient import Patients

SPACING_MM = 11.0  # a chest of 350 mm spans the image
NOISE_SD = 8.0
SITE_OFFSETS = (0.0, 6.0, -6.0)
SHADOW_CONTRASTS = (50.0, 60.0, 70.0)  # by severity
_LUNG_WIDTHS = (5.2, 5.8, 6.4)  # half axes, pixels
_LUNG_HEIGHTS = (10.5, 11.3, 12.1)
_HEARTS = (3.6, 4.4, 5.2)
SHADOW_CENTRES = tuple(
    (side * float(x), float(y)) for side, x, y in itertools.product((-1, 1), (7, 9), (-6, -2, 2, 6))
)


@functools.cache
def chests() -> Float[np.ndarray, "A S S"]:
    """All chests without a shadow: lung width, lung height, heart size."""
    shapes = itertools.product(_LUNG_WIDTHS, _LUNG_HEIGHTS, _HEARTS)
    return np.stack([_chest(*shape) for shape in shapes])


def _chest(lung_width: float, lung_height: float, heart: float) -> np.ndarray:
    body = rasters.soft_ellipse((0.0, 3.0), (15.5, 19.0), edge=0.8)
    lungs = sum(
        rasters.soft_ellipse((side * 8.0, -1.0), (lung_width, lung_height)) for side in (-1, 1)
    )
    spine = rasters.soft_ellipse((0.0, 0.0), (1.8, 30.0))
    heart_shadow = rasters.soft_ellipse((2.0, 4.0), (heart, 4.6))
    x, y = rasters.pixel_grid()
    ribs = 6.0 * np.cos(2 * np.pi * (y + 0.03 * x**2) / 5.0) * body
    image = 30 + 112 * body - 75 * lungs + ribs + 25 * spine
    return image + 40 * heart_shadow


@functools.cache
def shadows() -> Float[np.ndarray, "P S S"]:
    """A shadow of unit contrast at each place."""
    return np.stack([rasters.soft_ellipse(c, (3.6, 3.6), edge=0.8) for c in SHADOW_CENTRES])


def render(patients: Patients) -> UInt8[np.ndarray, "B S S"]:
    """The chest views of a block of patients, 8-bit grey."""
    draws = patients.draws
    place = draws.choice("xray/place", len(SHADOW_CENTRES))
    contrast = patients.shadow * np.asarray(SHADOW_CONTRASTS)[patients.severity]
    image = chests()[draws.choice("xray/chest", len(chests()))]
    image = image + contrast[:, None, None] * shadows()[place]
    image += np.asarray(SITE_OFFSETS)[patients.site][:, None, None]
    noise = draws.normal("xray/noise", rasters.SIDE**2).reshape(image.shape)
    return rasters.to_grey(image + NOISE_SD * noise)
