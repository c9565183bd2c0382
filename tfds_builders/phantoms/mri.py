"""Brain slice: a head of ellipses, and a lesion whose pattern (not brightness) tells the tumor.

    notumor  nothing      meningioma  filled disc      glioma  ring      pituitary  stripes

The sign of the lesion is random, so the mean image of every class is the same head and a linear
model of pixels sees no difference. image = head + site offset + lesion + white noise.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
from jaxtyping import Float, Int, UInt8

from tfds_builders.phantoms import rasters
from tfds_builders.phantoms.patient import Patients

SPACING_MM = 7.5  # a head of 200 mm spans 27 of 32 pixels
NOISE_SD = 7.0
SITE_OFFSETS = (0.0, 5.0, -5.0)
LESION_CONTRASTS = (45.0, 55.0, 65.0)  # by severity
_WIDTHS = (10.5, 11.5, 12.5)  # half axes of the head, pixels
_HEIGHTS = (12.5, 13.3, 14.1)
_SHIFTS = (-1.0, 0.0, 1.0)
_VENTRICLES = (1.5, 2.0, 2.5)  # half width, by age band: they widen with age
_AGE_BANDS = (43, 66)
LESION_CENTRES = tuple(
    (float(x), float(y)) for x, y in itertools.product((-5, -2, 2, 5), (-7, -4, -1, 2, 5, 8))
)


@functools.cache
def heads() -> Float[np.ndarray, "A S S"]:
    """All heads: (shift, width, height, ventricle), the last varying fastest."""
    return np.stack([_head(*shape) for shape in head_shapes()])


def head_shapes() -> list[tuple[float, float, float, float]]:
    """(shift, width, height, ventricle) of each of `heads`."""
    return list(itertools.product(_SHIFTS, _WIDTHS, _HEIGHTS, _VENTRICLES))


def _head(shift: float, width: float, height: float, ventricle: float) -> np.ndarray:
    skull = rasters.soft_ellipse((shift, 0.0), (width + 1.2, height + 1.2))
    inner = rasters.soft_ellipse((shift, 0.0), (width, height))
    brain = rasters.soft_ellipse((shift, 0.0), (width - 1.0, height - 1.0))
    left = rasters.soft_ellipse((shift - 2.2, -0.5), (ventricle, 4.0))
    right = rasters.soft_ellipse((shift + 2.2, -0.5), (ventricle, 4.0))
    x, y = rasters.pixel_grid()
    folds = 6.0 * np.cos(1.3 * np.hypot(x - shift, y)) * brain
    return 30 + 120 * skull - 90 * inner + 65 * brain + folds - 28 * np.maximum(left, right)


@functools.cache
def lesions() -> Float[np.ndarray, "Z P S S"]:
    """Lesion patterns of unit contrast and positive sign: [presentation, place]; notumor is 0."""
    patterns = [(_ring(c), _disc(c), np.zeros_like(_disc(c)), _stripes(c)) for c in LESION_CENTRES]
    return np.stack([np.stack(kind) for kind in zip(*patterns, strict=True)])


def _disc(centre: tuple[float, float]) -> np.ndarray:
    return rasters.soft_ellipse(centre, (4.0, 4.0))


def _ring(centre: tuple[float, float]) -> np.ndarray:
    outer = rasters.soft_ellipse(centre, (5.0, 5.0))
    return outer - 2 * rasters.soft_ellipse(centre, (2.9, 2.9))


def _stripes(centre: tuple[float, float]) -> np.ndarray:
    x, _ = rasters.pixel_grid()
    return rasters.soft_ellipse(centre, (5.0, 5.0)) * np.cos(2 * np.pi * (x - centre[0]) / 4.0)


def head_index(patients: Patients) -> Int[np.ndarray, "B"]:
    """Which of `heads` a patient has; the ventricle comes from the age band."""
    band = np.searchsorted(_AGE_BANDS, patients.age_years, side="right")
    shapes = patients.draws.choice("mri/shape", len(heads()) // len(_VENTRICLES))
    return shapes * len(_VENTRICLES) + band


def render(patients: Patients) -> UInt8[np.ndarray, "B S S"]:
    """The slices of a block of patients, 8-bit grey."""
    place = patients.draws.choice("mri/place", len(LESION_CENTRES))
    sign = 2.0 * patients.draws.choice("mri/sign", 2) - 1
    contrast = sign * np.asarray(LESION_CONTRASTS)[patients.severity]
    lesion = lesions()[patients.presentations["tumor"], place]
    noise = patients.draws.normal("mri/noise", rasters.SIDE**2)
    image = heads()[head_index(patients)] + contrast[:, None, None] * lesion
    image += np.asarray(SITE_OFFSETS)[patients.site][:, None, None]
    return rasters.to_grey(image + NOISE_SD * noise.reshape(image.shape))
