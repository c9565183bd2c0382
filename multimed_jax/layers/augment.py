"""Random changes of images and volumes in training, on the host; shapes never change.

Everything works on the [-1, 1] scale and draws from the generator that it is given.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

# Mild: contrast +-10 %, brightness +-5 % of the range, shift by up to 1/16 of the longest side.
CONTRAST_JITTER = 0.10
BRIGHTNESS_JITTER = 0.10  # on the [-1, 1] scale
SHIFT_FRACTION = 16
# Amount of stain in all and by colour channel, +-: light that is taken away scales, so that a
# white background stays white. Scanners and laboratories differ by more (Tellez et al. 2019,
# "Quantifying the effects of data augmentation and stain color normalization", section 3.2).
STAIN_JITTER = 0.15


def augment(
    pixels: Float[np.ndarray, "..."],
    rng: np.random.Generator,
    num_axes: int = 2,
    *,
    flip: bool = False,
    fill: float = -1.0,
) -> Float[np.ndarray, "..."]:
    """Contrast and brightness jitter, a small shift, and a flip of columns where asked for.

    Args:
        pixels: spatial axes first, the columns last among them, then channels, if any.
        rng: chooses.
        num_axes: of space: 2 for an image, 3 for a volume.
        flip: mirror half of the inputs, left for right. Off for most of the body, which is not
            symmetrical.
        fill: what comes in at the edges.
    """
    contrast, brightness = rng.uniform(-1.0, 1.0, 2).astype(np.float32)
    space = pixels.shape[:num_axes]
    reach = max(space) // SHIFT_FRACTION
    shifts = rng.integers(-reach, reach + 1, num_axes)
    mirrored = flip and rng.random() < 0.5
    jittered = pixels * (1 + CONTRAST_JITTER * contrast) + BRIGHTNESS_JITTER * brightness
    if mirrored:
        jittered = np.flip(jittered, axis=num_axes - 1)
    source, target = [], []
    for length, by in zip(space, shifts, strict=True):
        shift = int(np.clip(by, 1 - length, length - 1))
        source.append(slice(max(0, -shift), length - max(0, shift)))
        target.append(slice(max(0, shift), length + min(0, shift)))
    out = np.full_like(pixels, fill)
    out[tuple(target)] = jittered[tuple(source)]
    return np.clip(out, -1.0, 1.0, dtype=np.float32)


def draw_stain(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """Factors of the light that is taken away, by channel."""
    common, *each = rng.uniform(-STAIN_JITTER, STAIN_JITTER, 4)
    return ((1 + common) * (1 + np.array(each))).astype(np.float32)


def stained(
    pixels: Float[np.ndarray, "h w 3"], factors: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "h w 3"]:
    """The image with more or less stain; white stays white."""
    return np.clip(1 - (1 - pixels) * factors, -1.0, 1.0, dtype=np.float32)


def turned(
    pixels: Float[np.ndarray, "h w *channels"], rng: np.random.Generator
) -> Float[np.ndarray, "..."]:
    """One of the 8 flips and quarter turns of an image without an upright.

    A quarter turn exchanges height and width, which leaves the number of patches as it is.
    """
    quarter_turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    out = np.rot90(pixels, quarter_turns)
    return np.ascontiguousarray(np.flip(out, axis=1) if mirrored else out)
