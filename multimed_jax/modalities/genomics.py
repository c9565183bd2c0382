"""Genomics (genomics.window): a window of a DNA sequence as patches of bases or as k-mers.

Input: letters 5' to 3' of the stored strand, str or bytes, and `site`, the base of interest counted
from 0 (-1 is the middle). Lower case (soft-masked) counts as upper case, U as T; the other IUPAC
letters (R, Y, S, W, K, M, B, D, H, V) become N; a gap or anything else is an error. The window has
`window_bp` bases around the site, base `window_bp // 2` of it being the site; what reaches past an
end of the sequence is left out. Output, by `options.stem`:

    stem     part                                                   number of parts
    "conv"   int32 [patch] base codes, 0 behind the end             ceil(bases / patch)
    "kmer"   int32 [] word id: 0 padding, 1 ... W the words, W + 1  (bases - k) // stride + 1,
             every word with an N                                   at least 1

Base codes are those of `layers.nucleotides`: 1 A, 2 C, 3 G, 4 T, 5 N. The coordinate of a part is
the distance of its first base from the site in units of a part, so 0 is at the site.

Training may read the other strand (`reverse_complement`), move the window by up to `shift_bp` where
the sequence goes on, and replace a share `mutation_rate` of the bases by drawn ones; none of these
changes the number of parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.layers.nucleotides import (
    NUM_BASES,
    base_codes,
    composition,
    num_ranks,
    ranked_words,
    reverse_complement,
)
from multimed_jax.layers.sequence_stem import ConvSequenceStem, WordEmbed
from multimed_jax.specs import ModalitySpec, StreamSpec, Windows
from multimed_jax.types import Parts, Preview, Record, UserError

NAME = "genomics"
STREAM = "genomics.window"
FEATURE_WORD = 4
PREVIEW_BASES = 400
MAX_WORD = 8


@dataclasses.dataclass(frozen=True)
class GenomicsOptions:
    """Window, stem and augmentation.

    Attributes:
        window_bp: longest window.
        stem: "conv" (motif scan and words of a patch, `layers.sequence_stem`) or "kmer" (a token
            per word).
        patch: bases of a patch ("conv").
        motif_width: bases that a filter sees ("conv"); at most 2 * patch.
        num_motifs: filters ("conv").
        patch_hidden: width of a two-layer map of a whole patch ("conv"); 0 leaves it out.
        kmer: bases of a word: the tokens of "kmer", the words summed up in a patch of "conv".
        stride: bases between the starts of words ("kmer").
        both_strands: read a word or motif and its reverse complement as one.
        reverse_complement: training reads either strand with equal chance.
        shift_bp: see the module's docstring.
        mutation_rate: see the module's docstring.
        average_strands: evaluation averages the predictions from both strands.
    """

    window_bp: int = 200
    stem: Literal["conv", "kmer"] = "conv"
    patch: int = 20
    motif_width: int = 15
    num_motifs: int = 64
    patch_hidden: int = 0
    kmer: int = 6
    stride: int = 1
    both_strands: bool = True
    reverse_complement: bool = True
    shift_bp: int = 0
    mutation_rate: float = 0.0
    average_strands: bool = False

    def __post_init__(self):
        """Raises UserError for a stem or sizes that cannot be."""
        if self.stem not in ("conv", "kmer"):
            raise UserError(f"modality {NAME!r} has stem {self.stem!r}; accepted: conv, kmer")
        sizes = (self.window_bp, self.patch, self.motif_width, self.num_motifs, self.stride)
        if min(sizes) < 1 or not 1 <= self.kmer <= MAX_WORD:
            raise UserError(
                f"modality {NAME!r} has window_bp, patch, motif_width, num_motifs, stride of "
                f"{sizes} and kmer {self.kmer}; accepted: at least 1, kmer from 1 to {MAX_WORD}"
            )
        if self.stem == "conv" and max(self.motif_width // 2, self.kmer - 1) > self.patch:
            raise UserError(
                f"modality {NAME!r} has motif_width {self.motif_width} and kmer {self.kmer}; "
                f"accepted with patch {self.patch}: at most {2 * self.patch + 1} and "
                f"{self.patch + 1}"
            )
        if min(self.shift_bp, self.patch_hidden) < 0 or not 0 <= self.mutation_rate < 1:
            raise UserError(
                f"modality {NAME!r} has shift_bp {self.shift_bp}, patch_hidden {self.patch_hidden} "
                f"and mutation_rate {self.mutation_rate}; accepted: at least 0, the rate below 1"
            )

    @property
    def num_words(self) -> int:
        """Words of `kmer` bases that are told apart."""
        return num_ranks(self.kmer, self.both_strands)

    def num_parts(self, num_bases: int) -> int:
        """Parts of a window of this many bases."""
        if self.stem == "conv":
            return -(-num_bases // self.patch)
        return max(0, num_bases - self.kmer) // self.stride + 1

    @property
    def part_bp(self) -> int:
        """Bases from the start of one part to that of the next."""
        return self.patch if self.stem == "conv" else self.stride


def make_streams(options: GenomicsOptions) -> tuple[StreamSpec, ...]:
    """One stream, one axis: the distance from the site in parts."""
    shape = (options.patch,) if options.stem == "conv" else ()
    return (StreamSpec(STREAM, NAME, shape, 1, "int32"),)


def stored_letters(record: Record) -> bytes:
    """The sequence as stored; empty where the record lacks it."""
    window = record.get(NAME)
    if window is None:
        return b""
    letters = window["sequence"]
    if isinstance(letters, str):
        return letters.encode("utf-8")
    return letters.item() if isinstance(letters, np.ndarray) else bytes(letters)


def window_bounds(window: Mapping[str, Any], length: int, window_bp: int) -> tuple[int, int, int]:
    """Start and stop of the window, and the site, in bases of the sequence.

    Raises:
        DecodeError: a site outside the sequence.
    """
    site = int(window["site"])
    if not -1 <= site < length:
        raise DecodeError(
            f"a sequence of {length} bases has its site at {site}; accepted: 0 to {length - 1}, or "
            "-1 for the middle"
        )
    site = length // 2 if site < 0 else site
    start = site - window_bp // 2
    return max(0, start), min(length, start + window_bp), site


def count(record: Record, options: GenomicsOptions) -> dict[str, int]:
    """Parts of the window, from the length of the sequence and the site."""
    letters = stored_letters(record)
    if not letters:
        return {}
    start, stop, _ = window_bounds(record[NAME], len(letters), options.window_bp)
    return {STREAM: options.num_parts(stop - start)}


def decode(
    record: Record, options: GenomicsOptions, rng: np.random.Generator | None
) -> dict[str, Parts]:
    """Patches or words of the window; empty where the record lacks the modality.

    Raises:
        DecodeError: an illegal letter anywhere in the sequence, or a site outside of it.
    """
    letters = stored_letters(record)
    if not letters:
        return {}
    codes = base_codes(letters)
    start, stop, site = window_bounds(record[NAME], len(codes), options.window_bp)
    if rng is not None and options.shift_bp:
        move = int(rng.integers(-options.shift_bp, options.shift_bp + 1))
        move = int(np.clip(move, -start, len(codes) - stop))
        start, stop = start + move, stop + move
    codes, first_bp = codes[start:stop], start - site
    if rng is not None and options.mutation_rate:
        hit = rng.random(len(codes)) < options.mutation_rate
        codes = np.where(hit, rng.integers(1, NUM_BASES + 1, len(codes)), codes)
    other_strand = rng is not None and options.reverse_complement and rng.random() < 0.5
    return _parts(codes, first_bp, site - (start + len(codes) - 1), options, other_strand)


def num_windows(record: Record, options: GenomicsOptions) -> int:
    """Strands that evaluation reads."""
    return 2 if options.average_strands else 1


def decode_window(record: Record, options: GenomicsOptions, window: int) -> dict[str, Parts]:
    """The stored strand (window 0) or the other one (window 1); errors as `decode`."""
    letters = stored_letters(record)
    codes = base_codes(letters)
    start, stop, site = window_bounds(record[NAME], len(codes), options.window_bp)
    return _parts(codes[start:stop], start - site, site - (stop - 1), options, window == 1)


def _parts(
    codes: Int[np.ndarray, "n"],
    first_bp: int,
    mirrored_bp: int,
    options: GenomicsOptions,
    other_strand: bool,
) -> dict[str, Parts]:
    """Parts of either strand, given the distance of its first base from the site on each."""
    if other_strand:
        codes, first_bp = reverse_complement(codes), mirrored_bp
    parts = patches(codes, options) if options.stem == "conv" else words(codes, options)
    coords = (first_bp / options.part_bp + np.arange(len(parts))).astype(np.float32)[:, None]
    return {STREAM: Parts(parts, coords, np.zeros(len(parts), np.int32))}


def patches(codes: Int[np.ndarray, "n"], options: GenomicsOptions) -> Int[np.ndarray, "m L"]:
    """Codes in rows of `patch`, the last one filled with 0."""
    out = np.zeros((options.num_parts(len(codes)), options.patch), np.int32)
    out.reshape(-1)[: len(codes)] = codes
    return out


def words(codes: Int[np.ndarray, "n"], options: GenomicsOptions) -> Int[np.ndarray, "m"]:
    """Ids of the words at every `stride` bases; a window shorter than a word is one unknown."""
    unknown = options.num_words + 1
    rank, known = ranked_words(codes, options.kmer, options.both_strands)
    ids = np.where(known, rank + 1, unknown)[:: options.stride].astype(np.int32)
    return ids if len(ids) else np.array([unknown], np.int32)


def make_tokenizer(
    stream: StreamSpec, d_model: int, options: GenomicsOptions, rngs: nnx.Rngs
) -> nnx.Module:
    """Patches or words to tokens."""
    extent = options.window_bp / options.part_bp
    if options.stem == "kmer":
        return WordEmbed(options.num_words + 2, extent, d_model, rngs)
    return ConvSequenceStem(
        options.patch,
        options.motif_width,
        options.num_motifs,
        options.kmer,
        options.both_strands,
        options.patch_hidden,
        extent,
        d_model,
        rngs,
    )


def features(record: Record, options: GenomicsOptions) -> Float[np.ndarray, "138"]:
    """Counts of the 136 canonical 4-mers of the window, share of G and C, number of bases.

    A 4-mer and its reverse complement are counted as one, so both strands give the same vector;
    words with an N are left out, and the share is of the known bases. Zeros where the record lacks
    the modality.

    Raises:
        DecodeError: as `decode`.
    """
    letters = stored_letters(record)
    if not letters:
        return np.zeros(num_ranks(FEATURE_WORD, True) + 2, np.float32)
    codes = base_codes(letters)
    start, stop, _ = window_bounds(record[NAME], len(codes), options.window_bp)
    return composition(codes[start:stop], FEATURE_WORD)


def preview(record: Record, options: GenomicsOptions) -> Preview:
    """The window's letters as stored, at most 400 around its middle."""
    letters = stored_letters(record)
    if not letters:
        return Preview("text", "")
    start, stop, _ = window_bounds(record[NAME], len(letters), options.window_bp)
    spare = max(0, stop - start - PREVIEW_BASES)
    shown = letters[start + spare // 2 : stop - (spare - spare // 2)]
    return Preview("text", shown.decode("ascii", "replace"), (), "bp")


SPEC = ModalitySpec(
    name=NAME,
    id=8,
    spec="multimed_jax.modalities.genomics:SPEC",
    options=GenomicsOptions(),
    make_streams=make_streams,
    count=count,
    decode=decode,
    make_tokenizer=make_tokenizer,
    features=features,
    preview=preview,
    windows=Windows(num_windows, decode_window),
)
