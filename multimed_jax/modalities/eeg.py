"""Electroencephalography (eeg.trial): temporal patches of a trial over any montage.

Input: float32 [T, C] in microvolt at the record's rate, electrode positions on the unit sphere
(x right, y front, z up). Output: one part per temporal patch, shape [max_channels, patch_len + 4]:

    channel      0 .. patch_len-1      then x  y  z  present
    C3           samples                    its xyz   1        samples at options.rate_hz in units
    (padding)    0                          0  0  0   0        of the trial's scale (below)

- Resampled to `rate_hz` (polyphase); the first `window_s` are kept of a trial shorter than two
  windows; a longer recording is read in whole windows: one of them, drawn, in training, all of them
  at evaluation. A rest shorter than a patch is dropped, a trial shorter than a patch padded with 0.
- A channel with a NaN or infinite sample, or that never changes, or whose electrode is unknown (NaN
  position), is masked for the whole trial: it takes no slot. More channels than `max_channels`:
  those nearest to the hand and foot areas (C3, Cz, C4) stay, in record order.
- Each channel loses its mean; the trial is divided by the median over channels of their standard
  deviation in microvolt (at least `SCALE_FLOOR_UV`), which a few bad channels do not move; values
  are clipped at +-`CLIP`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from flax import nnx
from jaxtyping import Float, Int
from scipy import signal

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.layers.eeg_lstm import LstmStem
from multimed_jax.layers.eeg_stem import ConvStem
from multimed_jax.layers.resample import resample, resampled_length
from multimed_jax.specs import ModalitySpec, StreamSpec, Windows
from multimed_jax.types import Parts, Preview, Record, UserError

NAME = "eeg"
STREAM = "eeg.trial"
# Unit-sphere positions of C3, Cz and C4: on the coronal great circle, 45 degrees beside the vertex
# (idealised 10-20 system: 20 % steps of the 225 degrees from ear to ear).
MOTOR_XYZ = np.array([[-(0.5**0.5), 0, 0.5**0.5], [0, 0, 1], [0.5**0.5, 0, 0.5**0.5]], np.float32)
SCALE_FLOOR_UV = 0.5
CLIP = 8.0
MU_HZ = (8.0, 13.0)
BETA_HZ = (13.0, 30.0)
# Power of a band below which the baseline's logarithm sees silence, in microvolt squared.
FEATURE_FLOOR_UV2 = 1e-6
PREVIEW_CHANNELS = 8


@dataclasses.dataclass(frozen=True)
class EegOptions:
    """Geometry and stem.

    Attributes:
        rate_hz: sample rate of the parts.
        window_s: longest stretch of a trial that is used, from its start.
        patch_len: samples of a patch.
        max_channels: channel slots of a part.
        num_filters: spatial filters of the stem.
        stem: "conv" (band power and waveform, see `layers.eeg_stem`) or "lstm" (the stem of the
            MultiMed paper, see `layers.eeg_lstm`).
        num_hidden: width of the memories of "lstm".
    """

    rate_hz: float = 128.0
    window_s: float = 4.0
    patch_len: int = 128
    max_channels: int = 32
    num_filters: int = 16
    stem: Literal["conv", "lstm"] = "conv"
    num_hidden: int = 64

    def __post_init__(self):
        """Raises UserError for an unknown stem, or sizes that leave no patch."""
        if self.stem not in ("conv", "lstm"):
            raise UserError(f"modality {NAME!r} has stem {self.stem!r}; accepted: conv, lstm")
        sizes = (self.patch_len, self.max_channels, self.num_filters, self.num_hidden)
        if min(sizes) < 1 or self.rate_hz <= 0:
            raise UserError(
                f"modality {NAME!r} has patch_len {self.patch_len}, max_channels "
                f"{self.max_channels}, num_filters {self.num_filters}, num_hidden "
                f"{self.num_hidden}, rate_hz {self.rate_hz}; accepted: positive numbers"
            )
        if self.max_patches < 1:
            raise UserError(
                f"modality {NAME!r} has a window of {self.window_s} s at {self.rate_hz} Hz; "
                f"accepted: at least one patch of {self.patch_len} samples"
            )

    @property
    def max_patches(self) -> int:
        """Whole patches in a window."""
        return int(self.window_s * self.rate_hz + 1e-6) // self.patch_len


def make_streams(options: EegOptions) -> tuple[StreamSpec, ...]:
    """One stream, one axis: time in patches."""
    shape = (options.max_channels, options.patch_len + 4)
    return (StreamSpec(STREAM, NAME, shape, 1, "float32"),)


def record_rate_hz(trial: Mapping[str, Any]) -> float:
    """Sample rate of a trial. Raises DecodeError unless it is positive and finite."""
    rate_hz = float(trial["rate_hz"])
    if not (np.isfinite(rate_hz) and rate_hz > 0):
        raise DecodeError(f"a trial has a sample rate of {rate_hz} Hz; accepted: above 0")
    return rate_hz


def has_samples(trial: Mapping[str, Any] | None) -> bool:
    """Whether the record carries the modality."""
    return trial is not None and np.size(trial["signal_uv"]) > 0


def count(record: Record, options: EegOptions) -> dict[str, int]:
    """Patches of the trial, from its number of samples and its rate."""
    trial = record.get(NAME)
    if trial is None or not has_samples(trial):
        return {}
    length = resampled_length(len(trial["signal_uv"]), record_rate_hz(trial), options.rate_hz)
    return {STREAM: int(np.clip(length // options.patch_len, 1, options.max_patches))}


def num_windows(record: Record, options: EegOptions) -> int:
    """Whole windows of a recording; 1 for a trial shorter than two."""
    trial = record.get(NAME)
    if trial is None or not has_samples(trial):
        return 1
    length = resampled_length(len(trial["signal_uv"]), record_rate_hz(trial), options.rate_hz)
    return max(1, length // options.patch_len // options.max_patches)


@functools.lru_cache(maxsize=256)
def _motor_order(xyz: bytes) -> Int[np.ndarray, "C"]:
    """Electrodes with a known position, from nearest to farthest from the motor strip."""
    points = np.frombuffer(xyz, np.float32).reshape(-1, 3)
    known = np.flatnonzero(np.isfinite(points).all(axis=1))
    offset = points[known, None] - MOTOR_XYZ
    distance = np.linalg.norm(offset, axis=-1).min(axis=1)
    return known[np.argsort(distance, kind="stable")]


def select_channels(
    signal_uv: Float[np.ndarray, "T C"], xyz: Float[np.ndarray, "C 3"], max_channels: int
) -> Int[np.ndarray, "K"]:
    """The usable channels nearest to the motor strip, at most `max_channels`, in record order."""
    # Extremes are NaN or infinite where a sample is, and equal where nothing changes.
    low, high = signal_uv.min(axis=0), signal_uv.max(axis=0)
    alive = np.isfinite(low) & np.isfinite(high) & (low != high)
    order = _motor_order(np.ascontiguousarray(xyz, np.float32).tobytes())
    return np.sort(order[alive[order]][:max_channels])


def decode(
    record: Record, options: EegOptions, rng: np.random.Generator | None
) -> dict[str, Parts]:
    """Patches of the trial, or of one window of a longer recording, drawn where there is `rng`.

    Empty where the record lacks it.

    Raises:
        DecodeError: a signal that is no matrix, a position missing, a rate that is not positive,
            no usable channel.
    """
    number = num_windows(record, options)
    window = 0 if rng is None or number == 1 else int(rng.integers(number))
    return decode_window(record, options, window)


def decode_window(record: Record, options: EegOptions, window: int) -> dict[str, Parts]:
    """Patches of one window of the recording. Raises DecodeError as `decode`."""
    trial = record.get(NAME)
    if trial is None or not has_samples(trial):
        return {}
    signal_uv = np.asarray(trial["signal_uv"], np.float32)
    xyz = np.asarray(trial["electrode_xyz"], np.float32)
    if signal_uv.ndim != 2 or xyz.shape != (signal_uv.shape[1], 3):
        raise DecodeError(
            f"a trial has a signal of shape {signal_uv.shape} and positions of shape {xyz.shape}; "
            "accepted: [T, C] and [C, 3]"
        )
    channels = select_channels(signal_uv, xyz, options.max_channels)
    if not len(channels):
        raise DecodeError(
            f"a trial of {signal_uv.shape[1]} channels has none with finite, changing samples at a "
            "known position; accepted: at least 1"
        )
    number = count(record, options)[STREAM]
    samples = resample(signal_uv[:, channels], record_rate_hz(trial), options.rate_hz)
    start = window * options.max_patches * options.patch_len
    samples = normalise(samples[start : start + number * options.patch_len])
    length = options.patch_len
    parts = np.zeros((number, options.max_channels, length + 4), np.float32)
    used = len(channels)
    if len(samples) < length:
        parts[0, :used, : len(samples)] = samples.T
    else:
        parts[:, :used, :length] = samples.reshape(number, length, used).swapaxes(1, 2)
    parts[:, :used, length : length + 3] = xyz[channels]
    parts[:, :used, length + 3] = 1.0
    coords = np.arange(number, dtype=np.float32)[:, None]
    return {STREAM: Parts(parts, coords, np.zeros(number, np.int32))}


def normalise(samples_uv: Float[np.ndarray, "T C"]) -> Float[np.ndarray, "T C"]:
    """Centred channels in units of the trial's scale (see the module's docstring)."""
    centred = samples_uv - samples_uv.mean(axis=0)
    deviation_uv = np.sqrt(np.einsum("tc,tc->c", centred, centred) / len(centred))
    middle = np.sort(deviation_uv)[(len(deviation_uv) - 1) // 2]
    centred *= np.float32(1.0 / max(float(middle), SCALE_FLOOR_UV))
    return np.clip(centred, -CLIP, CLIP, out=centred)


def make_tokenizer(
    stream: StreamSpec, d_model: int, options: EegOptions, rngs: nnx.Rngs
) -> ConvStem | LstmStem:
    """Patches to tokens."""
    if options.stem == "lstm":
        return LstmStem(
            options.rate_hz,
            options.patch_len,
            options.max_patches,
            options.num_filters,
            options.num_hidden,
            d_model,
            rngs,
        )
    return ConvStem(
        options.rate_hz, options.patch_len, options.max_patches, options.num_filters, d_model, rngs
    )


def features(record: Record, options: EegOptions) -> Float[np.ndarray, "F"]:
    """Natural log of mu (8-13 Hz) and beta (13-30 Hz) power of each channel, in record order.

    Power is the integral of a Hann periodogram over the whole trial, in microvolt squared. A
    channel without finite samples gets the median of the others; a missing trial is all zeros.
    The channels of a source never change, so neither does the length of the vector.
    """
    trial = record.get(NAME)
    num_channels = 0 if trial is None else np.shape(trial["signal_uv"])[1]
    out = np.zeros((2, num_channels), np.float32)
    if trial is None or not has_samples(trial):
        return out.ravel()
    signal_uv = np.asarray(trial["signal_uv"], np.float64)
    finite = np.isfinite(signal_uv).all(axis=0)
    if not finite.any():
        return out.ravel()
    rate_hz = record_rate_hz(trial)
    frequency_hz, density = signal.periodogram(
        signal_uv[:, finite], rate_hz, window="hann", detrend="linear", axis=0
    )
    step_hz = frequency_hz[1] - frequency_hz[0] if len(frequency_hz) > 1 else rate_hz
    for row, (low_hz, high_hz) in enumerate((MU_HZ, BETA_HZ)):
        inside = (frequency_hz >= low_hz) & (frequency_hz < high_hz)
        power_uv2 = density[inside].sum(axis=0) * step_hz
        level = np.log(power_uv2 + FEATURE_FLOOR_UV2)
        out[row] = np.median(level)
        out[row, finite] = level
    return out.ravel()


def preview(record: Record, options: EegOptions) -> Preview:
    """The raw traces of up to 8 channels nearest to the motor strip, in microvolt."""
    trial = record.get(NAME)
    if trial is None or not has_samples(trial):
        return Preview("traces", np.zeros((0, 0), np.float32), (), "uV")
    signal_uv = np.asarray(trial["signal_uv"], np.float32)
    xyz = np.asarray(trial["electrode_xyz"], np.float32)
    shown = select_channels(signal_uv, xyz, PREVIEW_CHANNELS)
    if not len(shown):
        shown = np.arange(min(PREVIEW_CHANNELS, signal_uv.shape[1]))
    names = [n.decode("utf-8") if isinstance(n, bytes) else str(n) for n in trial["channel_names"]]
    return Preview("traces", signal_uv[:, shown], tuple(names[i] for i in shown), "uV")


SPEC = ModalitySpec(
    name=NAME,
    id=7,
    spec="multimed_jax.modalities.eeg:SPEC",
    options=EegOptions(),
    make_streams=make_streams,
    count=count,
    decode=decode,
    make_tokenizer=make_tokenizer,
    features=features,
    preview=preview,
    windows=Windows(num_windows, decode_window),
)
