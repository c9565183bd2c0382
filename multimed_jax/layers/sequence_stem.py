"""Stems of nucleotide sequences: patches of bases through a convolution, or one word per token.

Bases are coded as in `layers.nucleotides`. The convolution sees past the edges of a patch, but
never past those of its sample:

    item      1    1    1    2    2    .         patches a b c of one sample, d e of another
    patch     a    b    c    d    e    .
    c sees        [b]   c   [0]                  d is no neighbour of c
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from multimed_jax.layers.nucleotides import NUM_BASES, num_ranks, word_ranks
from multimed_jax.layers.patch_embed import CoordinateEmbedding
from multimed_jax.types import StreamBatch

# One row per code: nothing is 0, an unknown base is each base by a quarter.
_ONE_HOT = np.vstack([np.zeros(4), np.eye(4), np.full(4, 0.25)]).astype(np.float32)


def extended(
    parts: Int[Array, "P N L"], item: Int[Array, "P N"], left: int, right: int
) -> Int[Array, "P N E"]:
    """Patches with `left` bases of the patch before and `right` of the patch behind.

    What belongs to another item, or to none, is 0. Neither width exceeds a patch.
    """
    if max(left, right) > parts.shape[-1]:
        raise ValueError(f"{max(left, right)} bases reach past a patch of {parts.shape[-1]}")
    same = (item[:, 1:] == item[:, :-1]) & (item[:, 1:] > 0)
    edge: Bool[Array, "P 1"] = jnp.zeros((len(item), 1), bool)
    before = jnp.where(
        jnp.concatenate([edge, same], axis=1)[..., None], jnp.roll(parts, 1, axis=1), 0
    )
    behind = jnp.where(
        jnp.concatenate([same, edge], axis=1)[..., None], jnp.roll(parts, -1, axis=1), 0
    )
    pieces = [before[..., parts.shape[-1] - left :], parts, behind[..., :right]]
    return jnp.concatenate(pieces, axis=-1)


class MotifScan(nnx.Module):
    """Short filters slid over one-hot bases, and over the opposite strand where asked.

    The filter of the opposite strand is the same one reversed in place and in bases, and a place
    scores the better of both: a binding site counts the same on either strand. A place where the
    sequence has no base scores nothing.
    """

    def __init__(self, width: int, num_filters: int, both_strands: bool, rngs: nnx.Rngs):
        self.width, self.both_strands = width, both_strands
        init = nnx.initializers.normal((NUM_BASES * width) ** -0.5)
        shape = (width, NUM_BASES, num_filters)
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((num_filters,)))

    def __call__(self, codes: Int[Array, "P N E"]) -> Float[Array, "P N L F"]:
        """Scores at each of the L = E - width + 1 places, at least 0."""
        num_places = codes.shape[-1] - self.width + 1
        bases = jnp.asarray(_ONE_HOT)[codes]
        windows = jnp.stack([bases[:, :, i : i + num_places] for i in range(self.width)], axis=3)
        flat = rearrange(windows, "p n l w b -> p n l (w b)")
        kernel = self.kernel[...]
        score = flat @ rearrange(kernel, "w b f -> (w b) f")
        if self.both_strands:
            opposite = rearrange(kernel[::-1, ::-1], "w b f -> (w b) f")
            score = jnp.maximum(score, flat @ opposite)
        return jax.nn.relu(score + self.bias[...].reshape(1, 1, 1, -1))


class WordBag(nnx.Module):
    """The sum of the embeddings of the words that start in a patch.

    With both strands a word and its reverse complement share an embedding. A word with an unknown
    base, or that runs past the end, adds nothing. The sum is linear in word counts, the features
    of gapless k-mer regressions, from which the trunk starts.
    """

    def __init__(self, length: int, both_strands: bool, d_model: int, rngs: nnx.Rngs):
        self.length, self.both_strands = length, both_strands
        init = nnx.initializers.normal(0.02)
        shape = (num_ranks(length, both_strands), d_model)
        self.words = nnx.Param(init(rngs.params(), shape, jnp.float32))

    def __call__(self, codes: Int[Array, "P N E"]) -> Float[Array, "P N D"]:
        """Codes hold `length - 1` bases behind the patch."""
        num_places = codes.shape[-1] - self.length + 1
        number = jnp.zeros((*codes.shape[:-1], num_places), jnp.int32)
        known = jnp.ones(number.shape, bool)
        for i in range(self.length):
            code = codes[..., i : i + num_places]
            known &= (code >= 1) & (code <= NUM_BASES)
            number = number * NUM_BASES + jnp.clip(code - 1, 0, NUM_BASES - 1)
        rank = jnp.asarray(word_ranks(self.length, self.both_strands))[number]
        found = jnp.take(self.words[...], rank, axis=0)
        return jnp.sum(jnp.where(known[..., None], found, 0.0), axis=2)


class ConvSequenceStem(nnx.Module):
    """A token for each patch: its strongest and its mean motif scores, its words, its place.

    With `patch_hidden` also a two-layer map of the bases in their places of the patch: it tells
    whole words at once where these lie in step with the patches, and nothing where they do not.
    """

    def __init__(
        self,
        patch: int,
        motif_width: int,
        num_motifs: int,
        word_length: int,
        both_strands: bool,
        patch_hidden: int,
        extent: float,
        d_model: int,
        rngs: nnx.Rngs,
    ):
        self.patch, self.motif_width, self.word_length = patch, motif_width, word_length
        self.scan = MotifScan(motif_width, num_motifs, both_strands, rngs)
        self.mix = nnx.Linear(2 * num_motifs, d_model, rngs=rngs)
        self.bag = WordBag(word_length, both_strands, d_model, rngs)
        # One base of four is set in each place: the variance of a sum is the patch's length.
        init = nnx.initializers.normal(patch**-0.5)
        self.whole = (
            nnx.Sequential(
                nnx.Linear(patch * NUM_BASES, patch_hidden, kernel_init=init, rngs=rngs),
                jax.nn.gelu,
                nnx.Linear(patch_hidden, d_model, rngs=rngs),
            )
            if patch_hidden
            else None
        )
        self.place = CoordinateEmbedding(1, extent, d_model, rngs)

    def __call__(self, stream: StreamBatch) -> Float[Array, "P N D"]:
        """Parts [P, N, patch] of base codes to tokens."""
        parts, item = jnp.asarray(stream.parts), jnp.asarray(stream.item)
        left = (self.motif_width - 1) // 2
        around = extended(parts, item, left, self.motif_width - 1 - left)
        scores = self.scan(around)
        here = (parts > 0)[..., None]
        scores = jnp.where(here, scores, 0.0)
        number = jnp.maximum(jnp.sum(here, axis=2), 1).astype(scores.dtype)
        pooled = jnp.concatenate([jnp.max(scores, axis=2), jnp.sum(scores, axis=2) / number], -1)
        words = self.bag(extended(parts, item, 0, self.word_length - 1))
        tokens = self.mix(pooled) + words + self.place(stream.coords)
        if self.whole is not None:
            bases = jnp.asarray(_ONE_HOT)[parts]
            tokens += self.whole(rearrange(bases, "p n l b -> p n (l b)"))
        return tokens


class WordEmbed(nnx.Module):
    """One embedding per word id, as DNABERT (Ji et al. 2021) reads k-mers, plus its place."""

    def __init__(self, num_ids: int, extent: float, d_model: int, rngs: nnx.Rngs):
        init = nnx.initializers.normal(0.1)
        self.words = nnx.Param(init(rngs.params(), (num_ids, d_model), jnp.float32))
        self.place = CoordinateEmbedding(1, extent, d_model, rngs)

    def __call__(self, stream: StreamBatch) -> Float[Array, "P N D"]:
        """Parts [P, N] of word ids to tokens."""
        found = jnp.take(self.words[...], jnp.asarray(stream.parts), axis=0)
        return found + self.place(stream.coords)
