"""The convolutional EEG stem: spatial filters from electrode coordinates, band power, waveform.

samples [C, L] --spatial filters from xyz--> sources [F, L] --windows x temporal bank-->
power [F, B] --log, centred over F--> token
sources, averaged in short bins ---------------------^
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from multimed_jax.layers.patch_embed import CoordinateEmbedding
from multimed_jax.types import StreamBatch

# Log power of unit-scale noise in one band is around 1e-2; well below, it is silence.
POWER_FLOOR = 1e-4
# Layer normalisation over filters must not blow up the noise of nearly equal powers.
SPREAD_FLOOR = 1e-2


class SpatialFilters(nnx.Module):
    """Weights of electrodes, generated from where they sit, so that any montage fits.

    A radial-basis layer (its centres spread over the upper head and learnt) and a linear one give
    each electrode a weight in each of F filters. The weights of a filter sum to zero over the
    electrodes present, which makes sources independent of the reference electrode, and have unit
    norm. A lone electrode keeps its weight.
    """

    num_centres = 32
    # Radial width on the unit sphere: about the distance between neighbours of the 10-20 system.
    width = 0.4

    def __init__(self, num_filters: int, rngs: nnx.Rngs):
        self.centres = nnx.Param(jnp.asarray(_spread_over_head(self.num_centres)))
        init = nnx.initializers.normal(1.0)
        shape = (self.num_centres, num_filters)
        self.weights = nnx.Param(init(rngs.params(), shape, jnp.float32))

    def __call__(
        self, xyz: Float[Array, "P N C 3"], present: Float[Array, "P N C"]
    ) -> Float[Array, "P N C F"]:
        """Unit-norm, zero-sum weights; 0 at absent electrodes."""
        offset = xyz[..., None, :] - self.centres[...].reshape(1, 1, 1, -1, 3)
        near = jnp.exp(-jnp.sum(offset**2, axis=-1) / (2 * self.width**2))
        mask = present[..., None]
        weights = jnp.einsum("pnck,kf->pncf", near, self.weights[...]) * mask
        number = jnp.sum(mask, axis=2, keepdims=True)
        mean = jnp.sum(weights, axis=2, keepdims=True) / jnp.maximum(number, 1.0)
        weights = jnp.where(number > 1, weights - mean, weights) * mask
        return weights * jax.lax.rsqrt(jnp.sum(weights**2, axis=2, keepdims=True) + 1e-6)


def _spread_over_head(number: int) -> np.ndarray:
    """Points on a golden-angle spiral over the unit sphere, from its top to a little below ears."""
    z = np.linspace(1.0, -0.3, number)
    angle = np.arange(number) * np.pi * (3.0 - np.sqrt(5.0))
    radius = np.sqrt(1.0 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1).astype(np.float32)


class TemporalBank(nnx.Module):
    """Short temporal filters in quadrature pairs, started as Hann-windowed waves of 4 to 40 Hz.

    Power of a pair is the sum of both squares, averaged over windows that overlap by half a
    filter: the convolution, squaring, mean pooling and logarithm of ShallowConvNet (Schirrmeister
    et al. 2017), with a start that already resolves the mu and beta bands.
    """

    def __init__(self, rate_hz: float, patch_len: int):
        # A quarter of a second: a resolution of about 6 Hz, and still several windows to a patch.
        self.length = min(patch_len, max(4, round(0.25 * rate_hz)))
        step = max(1, self.length // 2)
        self.starts = tuple(range(0, patch_len - self.length + 1, step))
        highest = min(40.0, 0.45 * rate_hz)
        frequencies = np.concatenate([np.arange(4.0, 14.0, 2.0), np.arange(16.0, 41.0, 4.0)])
        frequencies = frequencies[frequencies <= highest]
        self.num_bands = len(frequencies)
        phase = 2 * np.pi * frequencies * np.arange(self.length)[:, None] / rate_hz
        window = np.hanning(self.length + 2)[1:-1, None]
        bank = np.concatenate([window * np.cos(phase), window * np.sin(phase)], axis=1)
        bank /= np.linalg.norm(bank, axis=0, keepdims=True)
        self.kernel = nnx.Param(jnp.asarray(bank.astype(np.float32)))

    def per_window(self, sources: Float[Array, "P N F L"]) -> Float[Array, "P N F W B"]:
        """Power of each source in each band and window."""
        windows = [sources[..., start : start + self.length] for start in self.starts]
        filtered = jnp.stack(windows, axis=-2) @ self.kernel[...]
        pairs = rearrange(filtered**2, "p n f w (q b) -> p n f w q b", q=2)
        return jnp.sum(pairs, axis=-2)

    def __call__(self, sources: Float[Array, "P N F L"]) -> Float[Array, "P N F B"]:
        """Mean power of each source in each band."""
        return jnp.mean(self.per_window(sources), axis=-2)


def centred_levels(
    power: Float[Array, "P N F *rest"],
) -> tuple[Float[Array, "P N F *rest"], Float[Array, "P N 1 *rest"]]:
    """Log power centred and scaled over the filters, and its mean over them.

    The first shows where a rhythm is (lateralisation), the second how strong it is.
    """
    level = jnp.log(power + POWER_FLOOR)
    mean = jnp.mean(level, axis=2, keepdims=True)
    spread = jnp.var(level, axis=2, keepdims=True)
    return (level - mean) * jax.lax.rsqrt(spread + SPREAD_FLOOR), mean


class ConvStem(nnx.Module):
    """One token for each temporal patch, from band powers and from the waveform itself."""

    waveform_bins = 8

    def __init__(
        self,
        rate_hz: float,
        patch_len: int,
        num_patches: int,
        num_filters: int,
        d_model: int,
        rngs: nnx.Rngs,
    ):
        self.patch_len = patch_len
        self.spatial = SpatialFilters(num_filters, rngs)
        self.temporal = TemporalBank(rate_hz, patch_len)
        bands = self.temporal.num_bands
        self.bins = min(self.waveform_bins, patch_len)
        self.where = nnx.Linear(num_filters * bands, d_model, rngs=rngs)
        self.how_strong = nnx.Linear(bands, d_model, rngs=rngs)
        self.waveform = nnx.Linear(num_filters * self.bins, d_model, rngs=rngs)
        self.place = CoordinateEmbedding(1, float(num_patches), d_model, rngs)

    def __call__(self, stream: StreamBatch) -> Float[Array, "P N D"]:
        """Parts [P, N, C, L + 4]: samples, then x, y, z and presence of each electrode."""
        parts = jnp.asarray(stream.parts)
        samples = parts[..., : self.patch_len]
        xyz = parts[..., self.patch_len : self.patch_len + 3]
        weights = self.spatial(xyz, parts[..., self.patch_len + 3])
        sources = jnp.einsum("pncl,pncf->pnfl", samples, weights)
        centred, mean = centred_levels(self.temporal(sources))
        used = self.patch_len // self.bins * self.bins
        binned = jnp.mean(
            rearrange(sources[..., :used], "p n f (b s) -> p n f b s", b=self.bins), axis=-1
        )
        return (
            self.where(rearrange(centred, "p n f b -> p n (f b)"))
            + self.how_strong(jnp.squeeze(mean, axis=2))
            + self.waveform(rearrange(binned, "p n f b -> p n (f b)"))
            + self.place(stream.coords)
        )
