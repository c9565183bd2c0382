"""Random numbers addressed by (seed, name, patient): the same in any order and any block size.

A stateful generator would tie patient i to every patient before it. Here each 64-bit word is a
hash of its address, so a block of patients is drawn at once and any of them can be drawn alone:

    word(seed, name, patient, k) = mix(mix(patient * golden + key(seed, name)) + k * golden)
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from jaxtyping import Float, Int, UInt64

# Increment and multipliers of splitmix64.
# Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014; the
# finaliser is Stafford's variant 13, as in java.util.SplittableRandom.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)

_EVEN_BYTES = np.uint64(0x00FF00FF00FF00FF)
_SUM_LANES = np.uint64(0x0001000100010001)
# Eight independent bytes, each uniform on 0..255: mean 8 * 127.5, variance 8 * (256**2 - 1) / 12.
_BYTES_MEAN = 1020.0
_BYTES_SD = float(np.sqrt(8 * (256**2 - 1) / 12))


@dataclasses.dataclass(frozen=True)
class Draws:
    """The random numbers of a block of patients.

    Attributes:
        seed: of the dataset.
        patients: index of each patient of the block.
    """

    seed: int
    patients: Int[np.ndarray, "B"]

    def words(self, name: str, count: int) -> UInt64[np.ndarray, "B {count}"]:
        """Uniform 64-bit words; every use has its own `name`."""
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        key = np.uint64(int.from_bytes(digest[:8], "big"))
        rows = _mix(self.patients.astype(np.uint64) * _GOLDEN + key)
        columns = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
        return _mix(rows[:, None] + columns[None, :])

    def uniform(self, name: str, count: int) -> Float[np.ndarray, "B {count}"]:
        """Uniform numbers in [0, 1) with 53 random bits."""
        return (self.words(name, count) >> np.uint64(11)) * 2.0**-53

    def normal(self, name: str, count: int) -> Float[np.ndarray, "B {count}"]:
        """Standard normal numbers, as the standardised sum of a word's eight bytes.

        Integer arithmetic only, hence the same on every processor. The tails end at 4.88 and the
        excess kurtosis is -0.15; mean and variance are exact.
        """
        words = self.words(name, count)
        pairs = (words & _EVEN_BYTES) + ((words >> np.uint64(8)) & _EVEN_BYTES)
        totals = (pairs * _SUM_LANES) >> np.uint64(48)
        return (totals.astype(np.float64) - _BYTES_MEAN) / _BYTES_SD

    def choice(self, name: str, size: int) -> Int[np.ndarray, "B"]:
        """A uniform index below `size` for each patient."""
        return (self.uniform(name, 1)[:, 0] * size).astype(np.int64)


def _mix(words: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    words = (words ^ (words >> np.uint64(30))) * _MULTIPLY_1
    words = (words ^ (words >> np.uint64(27))) * _MULTIPLY_2
    return words ^ (words >> np.uint64(31))
