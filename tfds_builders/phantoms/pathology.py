"""Breast tissue: one stained tile, or a bag of 4 to 12 tiles; nuclei tell benign from malignant.

    benign tile      few small pale nuclei        malignant tile   large dark crowded nuclei

A malignant bag has at least one malignant tile, and each other tile is malignant with a chance of
one half; a benign bag has none. tile = stroma + stain offset + nuclei + white noise.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from tfds_builders.phantoms import rasters
from tfds_builders.phantoms.draws import Draws
from tfds_builders.phantoms.patient import Patients

SIDE = 16
MICRONS_PER_PIXEL = 2.0
MIN_TILES, MAX_TILES = 4, 12
MALIGNANT_SHARE = 0.5
NOISE_SD = 14.0
STAIN_OFFSETS = (0.0, 10.0, -10.0)  # by site
NUM_LAYOUTS = 12
STROMA = (215.0, 165.0, 195.0)
_LAYOUT_SEED = 12  # the layouts are part of the forward model and the same in every dataset
# (nuclei, half axis in pixels, what a nucleus adds to red, green, blue)
_NUCLEI = ((4, 1.5, (-85, -80, -40)), (5, 2.5, (-120, -105, -60)))


@functools.cache
def nuclei() -> Float[np.ndarray, "2 P S S 3"]:
    """What the nuclei add to a tile: [malignant, layout]."""
    out = []
    for malignant, (number, radius, colour) in enumerate(_NUCLEI):
        draws = Draws(_LAYOUT_SEED, np.arange(NUM_LAYOUTS))
        places = 13 * draws.uniform(f"layout/{malignant}", 2 * number).reshape(-1, number, 2) - 6.5
        shapes = [
            np.clip(
                sum(rasters.soft_ellipse((x, y), (radius, radius), side=SIDE) for x, y in layout),
                0,
                1,
            )
            for layout in places
        ]
        out.append([np.multiply.outer(shape, np.array(colour, float)) for shape in shapes])
    return np.array(out)


def num_tiles(patients: Patients) -> Int[np.ndarray, "B"]:
    """Tiles of a record: 1 in half of them, else a bag."""
    size = MIN_TILES + patients.draws.choice("pathology/tiles", MAX_TILES - MIN_TILES + 1)
    return np.where(patients.draws.choice("pathology/bag", 2), size, 1)


def malignant_tiles(patients: Patients) -> Bool[np.ndarray, "B {MAX_TILES}"]:
    """Which tiles show malignant nuclei; those behind `num_tiles` count for nothing."""
    shown = patients.draws.uniform("pathology/share", MAX_TILES) < MALIGNANT_SHARE
    sure = patients.draws.uniform("pathology/sure", 1)[:, 0] * num_tiles(patients)
    shown |= np.arange(MAX_TILES) == sure.astype(np.int64)[:, None]
    return shown & (patients.presentations["breast"] == 1)[:, None]


def render(patients: Patients) -> UInt8[np.ndarray, "B {MAX_TILES} S S 3"]:
    """The tiles of a block of patients, RGB; take the first `num_tiles` of each."""
    draws, count = patients.draws, len(patients.draws.patients)
    layout = (draws.uniform("pathology/layout", MAX_TILES) * NUM_LAYOUTS).astype(np.int64)
    image = np.asarray(STROMA) + nuclei()[malignant_tiles(patients).astype(np.int64), layout]
    image += np.asarray(STAIN_OFFSETS)[patients.site].reshape(-1, 1, 1, 1, 1)
    noise = draws.normal("pathology/noise", MAX_TILES * SIDE**2 * 3)
    noise = noise.reshape(count, MAX_TILES, SIDE, SIDE, 3)
    return rasters.to_grey(image + NOISE_SD * noise)
