"""Protein chains (protein.chain): residues of an amino-acid sequence.

Input: one-letter codes from the N- to the C-terminus, str or bytes. Output: one int32 part for each
residue, 0 to 19 in the order of `LETTERS`, 20 for X; its coordinate is the residue's index in the
chain, from 0.

    read as   itself         the 20 amino acids and X, in either case
              C, K           U (selenocysteine), O (pyrrolysine): what they are made from
              X              B (D or N), Z (E or Q), J (I or L): two residues cannot be told apart
              nothing        white space and a final * (stop)
              an error       everything else, gaps included: they would shift the residues

A chain of more than `max_residues` is cropped in training, to consecutive residues from a random
start. At evaluation it cannot be decoded (`DecodeError`): the loader counts it and leaves it out,
because a structure of a part is another question.
"""

from __future__ import annotations

import dataclasses
import string
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.specs import ModalitySpec, StreamSpec
from multimed_jax.types import Parts, Preview, Record, StreamBatch, UserError

NAME = "protein"
STREAM = "protein.chain"
LETTERS = "ACDEFGHIKLMNPQRSTVWYX"
UNKNOWN = LETTERS.index("X")
_READ_AS = {"U": "C", "O": "K", "B": "X", "Z": "X", "J": "X"}
# Kyte and Doolittle 1982, "A simple method for displaying the hydropathic character of a protein",
# table 2; X counts 0.
_HYDROPATHY = dict(
    zip(
        LETTERS,
        (1.8, 2.5, -3.5, -3.5, 2.8, -0.4, -3.2, 4.5, -3.9, 3.8)
        + (1.9, -3.5, -1.6, -3.5, -4.5, -0.8, -0.7, 4.2, -0.9, -1.3, 0.0),
        strict=True,
    )
)
NUM_FEATURES = len(LETTERS) + 2
PREVIEW_LINE = 60


def _table() -> Int[np.ndarray, "256"]:
    """Index of every byte; -1 for what is no residue."""
    table = np.full(256, -1, np.int32)
    for letter in string.ascii_uppercase:
        read_as = _READ_AS[letter] if letter in _READ_AS else letter
        if read_as in LETTERS:
            table[[ord(letter), ord(letter.lower())]] = LETTERS.index(read_as)
    return table


_INDEX_OF_BYTE = _table()


@dataclasses.dataclass(frozen=True)
class ProteinOptions:
    """Limits.

    Attributes:
        max_residues: most residues of a sample.
    """

    max_residues: int = 256

    def __post_init__(self):
        """Raises UserError for a limit that leaves nothing."""
        if self.max_residues < 1:
            raise UserError(
                f"modality {NAME!r} has max_residues {self.max_residues}; accepted: at least 1"
            )


def make_streams(options: ProteinOptions) -> tuple[StreamSpec, ...]:
    """One stream, one axis: the index in the chain."""
    limit = options.max_residues
    return (StreamSpec(STREAM, NAME, (), 1, "int32", kind="residues", max_parts=limit),)


def _letters(record: Record) -> bytes:
    """The sequence without white space and stop; empty where the record lacks it."""
    chain = record.get(NAME)
    if chain is None:
        return b""
    sequence = chain["sequence"]
    sequence = sequence.item() if isinstance(sequence, np.ndarray) else sequence
    if isinstance(sequence, str):
        sequence = sequence.encode("utf-8")
    return b"".join(bytes(sequence).split()).removesuffix(b"*")


def residues(record: Record) -> Int[np.ndarray, "n"]:
    """Index of every residue of the whole chain; empty where the record lacks it.

    Raises:
        DecodeError: a character that is no residue.
    """
    letters = np.frombuffer(_letters(record), np.uint8)
    index = _INDEX_OF_BYTE[letters]
    wrong = np.unique(letters[index < 0])
    if len(wrong):
        shown = bytes(wrong.tolist()).decode("latin-1")
        raise DecodeError(
            f"a sequence of {len(letters)} residues holds {shown!r}; accepted: {LETTERS}, U and O "
            "(read as C and K), B, Z and J (read as X)"
        )
    return index


def count(record: Record, options: ProteinOptions) -> dict[str, int]:
    """Residues of the chain, at most `max_residues`."""
    number = len(_letters(record))
    return {STREAM: min(number, options.max_residues)} if number else {}


def decode(
    record: Record, options: ProteinOptions, rng: np.random.Generator | None
) -> dict[str, Parts]:
    """Residues and their places; empty where the record has no chain.

    Raises:
        DecodeError: a character that is no residue; without `rng`, more than `max_residues`.
    """
    index = residues(record)
    if not len(index):
        return {}
    number = min(len(index), options.max_residues)
    if number < len(index) and rng is None:
        raise DecodeError(
            f"a chain has {len(index)} residues; accepted at evaluation: at most "
            f"{options.max_residues}"
        )
    start = 0 if rng is None else int(rng.integers(0, len(index) - number + 1))
    coords = np.arange(start, start + number, dtype=np.float32)[:, None]
    return {STREAM: Parts(index[start : start + number], coords, np.zeros(number, np.int32))}


class ResidueEmbed(nnx.Module):
    """One row for each residue, and rows for its neighbours up to `REACH` away in the chain.

    A neighbour counts only inside the same chain. The sum lets the first layer of the trunk see
    short words of the sequence. Waves of the index in the chain are added: rotary positions tell
    only how far apart residues are, and members of a family share their numbering but for gaps.
    """

    REACH = 2
    NUM_WAVES = 16  # of lengths from 2 pi to 2 pi * LONGEST residues
    LONGEST = 200.0

    def __init__(self, d_model: int, rngs: nnx.Rngs):
        table = nnx.initializers.normal(0.5)(
            rngs.params(), (2 * self.REACH + 1, len(LETTERS), d_model), jnp.float32
        )
        self.table = nnx.Param(table)
        waves = nnx.initializers.normal(0.2)(
            rngs.params(), (2 * self.NUM_WAVES, d_model), jnp.float32
        )
        self.waves = nnx.Param(waves)

    def __call__(self, stream: StreamBatch) -> Float[Array, "P N D"]:
        """One token for each residue."""
        residue, item = jnp.asarray(stream.parts), jnp.asarray(stream.item)
        place = jnp.asarray(stream.coords)[..., 0]
        tokens = jnp.take(self.table[...][self.REACH], residue, axis=0)
        for shift in range(-self.REACH, self.REACH + 1):
            if shift:
                there = jnp.roll(residue, -shift, axis=1)
                # The places tell the end of a pack, where the roll wraps around.
                same = jnp.roll(item, -shift, axis=1) == item
                same &= jnp.round(jnp.roll(place, -shift, axis=1) - place) == shift
                row = jnp.take(self.table[...][self.REACH + shift], there, axis=0)
                tokens += jnp.where(same[..., None], row, 0.0)
        frequency = self.LONGEST ** -jnp.linspace(0.0, 1.0, self.NUM_WAVES)
        angle = place[..., None] * frequency.reshape(1, 1, -1)
        return tokens + jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1) @ self.waves[...]


def make_tokenizer(
    stream: StreamSpec, d_model: int, options: ProteinOptions, rngs: nnx.Rngs
) -> ResidueEmbed:
    """Residues to tokens."""
    return ResidueEmbed(d_model, rngs)


def features(record: Record, options: ProteinOptions) -> Float[np.ndarray, "23"]:
    """Share of each letter of `LETTERS`, log1p of the length, mean hydropathy; 0 without a chain.

    Raises:
        DecodeError: as `residues`.
    """
    index = residues(record)
    out = np.zeros(NUM_FEATURES, np.float32)
    if len(index):
        shares = np.bincount(index, minlength=len(LETTERS)) / len(index)
        out[: len(LETTERS)] = shares
        out[-2] = np.log1p(len(index))
        out[-1] = shares @ np.array([_HYDROPATHY[letter] for letter in LETTERS])
    return out


def preview(record: Record, options: ProteinOptions) -> Preview:
    """The sequence as stored, in lines of 60."""
    letters: Any = _letters(record).decode("latin-1")
    lines = [letters[i : i + PREVIEW_LINE] for i in range(0, len(letters), PREVIEW_LINE)]
    return Preview("text", "\n".join(lines))


SPEC = ModalitySpec(
    name=NAME,
    id=10,
    spec="multimed_jax.modalities.protein:SPEC",
    options=ProteinOptions(),
    make_streams=make_streams,
    count=count,
    decode=decode,
    make_tokenizer=make_tokenizer,
    features=features,
    preview=preview,
)
