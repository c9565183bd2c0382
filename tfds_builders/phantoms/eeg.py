"""Imagined movement: the mu rhythm (8-12 Hz) fades over the cortex that drives the moving part.

    left_fist  right hand area (C4) fades      both_fists  both hand areas fade
    right_fist left hand area (C3) fades       both_feet   the foot area (Cz) fades

Every rhythm is a Gaussian process on Fourier bins, so phases are random, the mean of every sample
is 0 in every class, and only band power tells. signal = areas x projection + occipital alpha +
1/f background, all independent given the presentation.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float, Float32

from tfds_builders.phantoms.patient import Patients

RATE_HZ = 64.0
NUM_SAMPLES = 128
CHANNELS = ("Fz", "FC3", "FC4", "C3", "Cz", "C4", "Pz", "Oz")
# Unit-sphere head coordinates (x right, y front, z up).
# Source: the 10-05 positions that MNE-Python ships (`standard_1005`), scaled to length 1.
ELECTRODE_XYZ = np.array(
    [
        (0.004, 0.661, 0.751),
        (-0.708, 0.267, 0.654),
        (0.717, 0.273, 0.641),
        (-0.707, -0.126, 0.696),
        (0.004, -0.091, 0.996),
        (0.721, -0.117, 0.683),
        (0.003, -0.701, 0.714),
        (0.001, -0.992, 0.127),
    ],
    np.float32,
)
AREAS = ("C3", "C4", "Cz", "Oz")  # left hand-area, right hand-area, foot area, occipital alpha
SPREAD = 0.45  # chord length on the unit sphere at which a projection falls to exp(-1/2)
MU_BAND_HZ = (8.0, 12.0)
MU_LEVELS_UV = (9.0, 11.0, 13.0)  # root mean square of an area at rest, by patient
ALPHA_LEVELS_UV = (6.0, 10.0, 14.0)
FADED = 0.2  # share of the amplitude that is left
# Which of the first three areas fades, by presentation (order of `CLASS_NAMES["motor"]`).
FADES = np.array([(0, 1, 0), (1, 0, 0), (1, 1, 0), (0, 0, 1)])
BACKGROUND_UV = 7.0  # root mean square per channel, power falling as 1/f above 1 Hz


@functools.cache
def projection() -> Float[np.ndarray, "C R"]:
    """Gain from area to channel, falling as a Gaussian of the chord between them."""
    areas = ELECTRODE_XYZ[[CHANNELS.index(name) for name in AREAS]].astype(np.float64)
    chord = np.linalg.norm(ELECTRODE_XYZ[:, None] - areas[None], axis=-1)
    return np.exp(-0.5 * (chord / SPREAD) ** 2)


@functools.cache
def background_sd() -> Float[np.ndarray, "F"]:
    """Standard deviation of each real part of the background's Fourier bins, 0.5 Hz apart.

    Bin 0 and the last (Nyquist) are left empty, so every bin has a real and an imaginary part.
    """
    frequency = np.fft.rfftfreq(NUM_SAMPLES, 1 / RATE_HZ)
    power = 1 / np.maximum(frequency, 1.0)
    power[[0, -1]] = 0
    return BACKGROUND_UV * np.sqrt(power / power.sum()) * _BIN_SCALE


@functools.cache
def mu_bins() -> np.ndarray:
    """The Fourier bins of the mu band."""
    frequency = np.fft.rfftfreq(NUM_SAMPLES, 1 / RATE_HZ)
    return np.flatnonzero((frequency >= MU_BAND_HZ[0]) & (frequency <= MU_BAND_HZ[1]))


def rhythm_sd(level_uv: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Standard deviation of each real part in a mu bin, for a rhythm of this root mean square."""
    return level_uv * np.sqrt(1 / len(mu_bins())) * _BIN_SCALE


# A bin a + ib (a, b of variance s^2) contributes (2/T)^2 * s^2 to the variance of a sample.
_BIN_SCALE = NUM_SAMPLES / 2


def area_levels_uv(patients: Patients) -> Float[np.ndarray, "B R"]:
    """Root mean square of each area's rhythm: the patient's own level, faded by the movement."""
    mu = np.asarray(MU_LEVELS_UV)[patients.draws.choice("eeg/mu", len(MU_LEVELS_UV))]
    alpha = np.asarray(ALPHA_LEVELS_UV)[patients.draws.choice("eeg/alpha", len(ALPHA_LEVELS_UV))]
    gain = np.where(FADES[patients.presentations["motor"]], FADED, 1.0)
    return np.concatenate([mu[:, None] * gain, alpha[:, None]], axis=1)


def render(patients: Patients) -> Float32[np.ndarray, "B T C"]:
    """The trials of a block of patients, microvolt."""
    num_bins, num_mu = NUM_SAMPLES // 2 + 1, len(mu_bins())
    background = _complex_normal(patients, "eeg/background", num_bins, len(CHANNELS))
    spectrum = background * background_sd()[None, :, None]
    rhythm = _complex_normal(patients, "eeg/rhythm", num_mu, len(AREAS))
    rhythm *= rhythm_sd(area_levels_uv(patients))[:, None, :]
    spectrum[:, mu_bins()] += rhythm @ projection().T
    return np.fft.irfft(spectrum, NUM_SAMPLES, axis=1).astype(np.float32)


def _complex_normal(patients: Patients, name: str, rows: int, columns: int) -> np.ndarray:
    parts = patients.draws.normal(name, 2 * rows * columns)
    parts = parts.reshape(-1, rows, columns, 2)
    return parts[..., 0] + 1j * parts[..., 1]
