"""Eye: a photograph of the retina (RGB) or a cross-section (grey); both show the grade's lesions.

Grade k shows the first k of four kinds of lesion, so the grade is the number of kinds:

    photograph   red dots     yellow spots    large blots    pale streaks
    section      bright dots  cysts           fluid below    a membrane above

image = retina + site offset + lesions + white noise. Which layout a kind takes says nothing.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
from jaxtyping import Float, Int, UInt8

from tfds_builders.phantoms import rasters
from tfds_builders.phantoms.draws import Draws
from tfds_builders.phantoms.patient import Patients

PHOTO_SPACING_MM = 0.4
SCAN_SPACING_MM = 0.06
PHOTO_NOISE_SD = 12.0
SCAN_NOISE_SD = 9.0
SITE_OFFSETS = (0.0, 5.0, -5.0)
NUM_LAYOUTS = 5
NUM_KINDS = 4
_LAYOUT_SEED = 11  # the layouts are part of the forward model and the same in every dataset
# Of the photograph: (count, half axes in pixels, red, green, blue) of one kind of lesion.
_PHOTO_LESIONS = (
    (6, (1.3, 1.3), (-80, -45, -15)),
    (5, (1.6, 1.6), (45, 95, 30)),
    (3, (2.8, 2.4), (-100, -55, -20)),
    (2, (1.0, 6.0), (35, 80, 130)),
)


@functools.cache
def photo_retinas() -> Float[np.ndarray, "A S S 3"]:
    """All retinas without a lesion: side of the optic disc, course of the vessels."""
    shapes = itertools.product((-1, 1), (0.06, 0.09))
    return np.stack([_photo_retina(side, bend) for side, bend in shapes])


def _photo_retina(side: int, bend: float) -> np.ndarray:
    field = rasters.soft_ellipse((0.0, 0.0), (15.0, 15.0))
    disc = rasters.soft_ellipse((side * 9.5, 0.0), (2.6, 3.0))
    x, y = rasters.pixel_grid()
    reach = bend * (x - side * 9.5) ** 2
    vessels = sum(np.exp(-((np.abs(y) - reach - at) ** 2)) for at in (1.0, 4.0)) * field
    colour = np.multiply.outer(field, (150.0, 80.0, 40.0)) + 20
    colour += np.multiply.outer(disc, (45.0, 65.0, 45.0))
    return colour - np.multiply.outer(vessels, (30.0, 25.0, 10.0))


@functools.cache
def photo_lesions() -> Float[np.ndarray, "K P S S 3"]:
    """What each kind of lesion adds to the photograph, [kind, layout]."""
    out = []
    for kind, (number, radii, colour) in enumerate(_PHOTO_LESIONS):
        places = _places(f"photo/{kind}", number, 10.0, 10.0)
        shapes = [
            np.clip(sum(rasters.soft_ellipse((x, y), radii) for x, y in layout), 0, 1)
            for layout in places
        ]
        out.append([np.multiply.outer(shape, np.array(colour, float)) for shape in shapes])
    return np.array(out)


@functools.cache
def scan_retinas() -> Float[np.ndarray, "A S S"]:
    """All sections without a lesion: depth of the surface, curvature, brightness of the base."""
    shapes = itertools.product((-1.0, 0.0, 1.0), (0.0, 0.008), (60.0, 80.0))
    return np.stack([_scan_retina(*shape) for shape in shapes])


def _scan_retina(shift: float, curve: float, base: float) -> np.ndarray:
    x, y = rasters.pixel_grid()
    depth = y - shift - curve * x**2
    # Layers from the surface down: bright nerve fibres, darker nuclei, the bright base.
    layers = ((-5.0, 2.0, 70.0), (0.0, 3.5, 45.0), (4.0, 1.5, 60.0), (8.0, 1.8, base + 40))
    bands = [level * np.exp(-(((depth - at) / width) ** 2)) for at, width, level in layers]
    return 25 + np.sum(bands, axis=0)


@functools.cache
def scan_lesions() -> Float[np.ndarray, "K P S S"]:
    """What each kind of lesion adds to the section, [kind, layout]."""
    dots = [
        70 * np.clip(sum(rasters.soft_ellipse((x, y), (1.2, 1.2)) for x, y in layout), 0, 1)
        for layout in _places("scan/0", 5, 13.0, 2.0)
    ]
    centres = np.linspace(-9, 9, NUM_LAYOUTS)
    cysts = [
        -55
        * (
            rasters.soft_ellipse((x, 0.5), (3.6, 2.2))
            + rasters.soft_ellipse((-x / 2, -4.0), (2.4, 1.6))
        )
        for x in centres
    ]
    fluid = [-80 * rasters.soft_ellipse((x, 9.0), (6.0, 2.4)) for x in centres]
    membranes = [90 * rasters.soft_ellipse((x, -11.5), (8.0, 1.2)) for x in centres]
    return np.array([dots, cysts, fluid, membranes])


def _places(name: str, number: int, reach_x: float, reach_y: float) -> np.ndarray:
    """[layout, lesion, (x, y)] in pixels from the centre, spread over an ellipse."""
    uniform = Draws(_LAYOUT_SEED, np.arange(NUM_LAYOUTS)).uniform(f"layout/{name}", 2 * number)
    radius = np.sqrt((np.arange(number) + uniform[:, :number]) / number)
    angle = 2 * np.pi * (uniform[:, number:] + np.arange(number) * 0.618)
    return np.stack([reach_x * radius * np.cos(angle), reach_y * radius * np.sin(angle)], axis=-1)


def is_photo(patients: Patients) -> Int[np.ndarray, "B"]:
    """1 where the eye was photographed, 0 where it was scanned."""
    return patients.draws.choice("oct/device", 2)


def render_photos(patients: Patients) -> UInt8[np.ndarray, "B S S 3"]:
    """The photographs of a block of patients, RGB."""
    return _render(patients, "photo", photo_retinas(), photo_lesions(), PHOTO_NOISE_SD)


def render_scans(patients: Patients) -> UInt8[np.ndarray, "B S S"]:
    """The sections of a block of patients, 8-bit grey."""
    return _render(patients, "scan", scan_retinas(), scan_lesions(), SCAN_NOISE_SD)


def _render(
    patients: Patients, name: str, retinas: np.ndarray, lesions: np.ndarray, noise_sd: float
) -> np.ndarray:
    draws, grade = patients.draws, patients.presentations["retinopathy"]
    image = retinas[draws.choice(f"oct/{name}/retina", len(retinas))]
    shape = (-1,) + (1,) * (image.ndim - 1)
    image = image + np.asarray(SITE_OFFSETS)[patients.site].reshape(shape)
    for kind in range(NUM_KINDS):
        layout = draws.choice(f"oct/{name}/{kind}", NUM_LAYOUTS)
        image += (grade > kind).reshape(shape) * lesions[kind, layout]
    noise = draws.normal(f"oct/{name}/noise", image[0].size).reshape(image.shape)
    return rasters.to_grey(image + noise_sd * noise)
