"""Pulse waves of a finger clip (ppg.wave): a modality that the package does not have.

Input: optical absorption in arbitrary units, [time], NaN where the clip was off. Output: patches of
the centred wave, resampled to `rate_hz` and cut at `window_s`; a sample that is not known is 0.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from flax import nnx

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.layers.patch_embed import PatchEmbed
from multimed_jax.specs import ModalitySpec, StreamSpec
from multimed_jax.types import Parts, Preview, Record

NAME = "ppg"
STREAM = "ppg.wave"


@dataclasses.dataclass(frozen=True)
class PpgOptions:
    """Geometry of a wave."""

    rate_hz: float = 16.0
    window_s: float = 4.0
    patch_len: int = 16

    @property
    def num_patches(self) -> int:
        """Patches of a window."""
        return int(self.rate_hz * self.window_s) // self.patch_len


def make_streams(options: PpgOptions) -> tuple[StreamSpec, ...]:
    return (StreamSpec(STREAM, NAME, (options.patch_len,), 1, "float32"),)


def count(record: Record, options: PpgOptions) -> dict[str, int]:
    present = NAME in record and len(record[NAME]["wave"])
    return {STREAM: options.num_patches} if present else {}


def wave(record: Record, options: PpgOptions) -> np.ndarray:
    """The window at `rate_hz`, centred. Raises DecodeError without a rate above 0."""
    values = np.asarray(record[NAME]["wave"], np.float32)
    rate_hz = float(record[NAME]["rate_hz"])
    if not rate_hz > 0:
        raise DecodeError(f"a wave has rate {rate_hz} Hz; accepted: above 0")
    times = np.arange(options.num_patches * options.patch_len) / options.rate_hz
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(len(times), np.float32)
    filled = np.where(known, values - values[known].mean(), 0.0)
    found = np.interp(times, np.arange(len(values)) / rate_hz, filled, right=0.0)
    return found.astype(np.float32)


def decode(
    record: Record, options: PpgOptions, rng: np.random.Generator | None
) -> dict[str, Parts]:
    if not count(record, options):
        return {}
    parts = wave(record, options).reshape(-1, options.patch_len)
    number = len(parts)
    coords = np.arange(number, dtype=np.float32)[:, None]
    return {STREAM: Parts(parts, coords, np.zeros(number, np.int32))}


def make_tokenizer(
    stream: StreamSpec, d_model: int, options: PpgOptions, rngs: nnx.Rngs
) -> PatchEmbed:
    return PatchEmbed(stream.patch_shape, float(options.num_patches), d_model, rngs, num_axes=1)


def features(record: Record, options: PpgOptions) -> np.ndarray:
    if not count(record, options):
        return np.zeros(options.num_patches * options.patch_len, np.float32)
    return wave(record, options)


def preview(record: Record, options: PpgOptions) -> Preview:
    return Preview("traces", features(record, options)[:, None], ("clip",), "a.u.")


SPEC = ModalitySpec(
    name=NAME,
    id=11,
    spec="bedside.ppg:SPEC",
    options=PpgOptions(),
    make_streams=make_streams,
    count=count,
    decode=decode,
    make_tokenizer=make_tokenizer,
    features=features,
    preview=preview,
)
