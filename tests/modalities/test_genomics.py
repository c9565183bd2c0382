from __future__ import annotations

import itertools

import numpy as np
import pytest
from flax import nnx

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.modalities import genomics
from multimed_jax.types import UserError
from tests.modalities.streams import (
    D_MODEL,
    assert_missing,
    check_tokenizer,
    decode_one,
    run,
    to_batch,
)

SPEC = genomics.SPEC.with_options(window_bp=24, patch=6, motif_width=5, num_motifs=8, kmer=3)
KMER = SPEC.with_options(stem="kmer", both_strands=False, stride=2)
PAIR = dict(zip("ACGTN", "TGCAN", strict=True))


def dna(sequence: str | bytes, site: int = -1) -> dict:
    return {"genomics": {"sequence": sequence, "site": np.int32(site)}}


def letters(n: int, seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), n))


def mirrored(sequence: str) -> str:
    return "".join(PAIR[letter] for letter in reversed(sequence))


def spelt(parts: np.ndarray) -> str:
    return "".join(".ACGTN"[code] for code in parts.ravel())


def test_patches_spell_the_window():
    sequence = letters(24)
    parts = decode_one(SPEC, dna(sequence))
    assert parts.parts.shape == (4, 6) and spelt(parts.parts) == sequence
    np.testing.assert_allclose(parts.coords[:, 0], [-2, -1, 0, 1])
    assert spelt(decode_one(SPEC, dna(letters(10).encode())).parts) == letters(10) + ".."


@pytest.mark.parametrize(
    ("length", "site", "start", "stop"),
    [(100, -1, 38, 62), (100, 30, 18, 42), (100, 5, 0, 17), (100, 99, 87, 100), (10, -1, 0, 10)],
)
def test_the_window_lies_around_the_site(length, site, start, stop):
    sequence = letters(length)
    parts = decode_one(SPEC, dna(sequence, site))
    assert spelt(parts.parts).rstrip(".") == sequence[start:stop]
    middle = length // 2 if site < 0 else site
    assert parts.coords[0, 0] == pytest.approx((start - middle) / 6)


def test_letters():
    assert spelt(decode_one(SPEC, dna("acgtn")).parts) == "ACGTN."
    assert spelt(decode_one(SPEC, dna("AUuRYSWKMBDHVN")).parts) == "ATT" + "N" * 11 + "...."
    for illegal in ("AC-GT", "ACGTX", "AC GT", "ACGÄ", "A.C", "ACG1"):
        for function in (
            lambda s=illegal: SPEC.decode(dna(s), SPEC.options, None),
            lambda s=illegal: SPEC.features(dna(s), SPEC.options),
        ):
            with pytest.raises(DecodeError, match="at base"):
                function()
    with pytest.raises(DecodeError, match="site at 5; accepted: 0 to 3"):
        SPEC.count(dna("ACGT", 5), SPEC.options)


def test_words():
    def word(text: str) -> int:
        return 1 + sum("ACGT".index(c) * 4**i for i, c in enumerate(reversed(text)))

    sequence = "ACGTTNACGG"
    parts = decode_one(KMER, dna(sequence)).parts
    unknown = 65
    expected = [unknown if "N" in (w := sequence[i : i + 3]) else word(w) for i in range(0, 8, 2)]
    assert parts.tolist() == expected and expected.count(unknown) == 1
    assert decode_one(KMER, dna("AC")).parts.tolist() == [unknown]
    both = KMER.with_options(both_strands=True, stride=1)
    forward = decode_one(both, dna(sequence)).parts
    assert forward.tolist() == decode_one(both, dna(mirrored(sequence))).parts[::-1].tolist()
    # 3-mers are never their own reverse complement: 32 pairs, then the unknown one.
    words = ["".join(w) for w in itertools.product("ACGT", repeat=3)]
    ids = {int(decode_one(both, dna(w)).parts[0]) for w in words}
    assert ids == set(range(1, 33)) and int(forward.max()) == 33


@pytest.mark.parametrize("spec", [SPEC, KMER], ids=["conv", "kmer"])
def test_count_equals_decode(spec):
    spec = spec.with_options(shift_bp=4, mutation_rate=0.3)
    rng = np.random.default_rng(0)
    for length, site in [(1, -1), (2, 0), (3, 2), (5, 0), (23, 7), (24, -1), (25, 3), (90, 88)]:
        record = dna(letters(length), site)
        decode_one(spec, record)
        for _ in range(6):
            decode_one(spec, record, rng)


def test_missing():
    for record in (dna(""), dna(b""), {}):
        assert_missing(SPEC, record)
        assert SPEC.features(record, SPEC.options).shape == (138,)


def test_either_strand_is_read_in_training():
    sequence = letters(40)
    window = sequence[8:32]
    rng = np.random.default_rng(0)
    seen = [spelt(decode_one(SPEC, dna(sequence), rng).parts) for _ in range(60)]
    assert set(seen) == {window, mirrored(window)} and 15 < seen.count(window) < 45
    # Of a window that is cut, the other strand's coordinates run the other way.
    cut = dna(sequence, 4)
    found = {}
    for _ in range(20):
        parts = decode_one(SPEC, cut, rng)
        found[spelt(parts.parts)] = float(parts.coords[0, 0])
    kept = sequence[:16]
    assert found == pytest.approx(
        {kept + "..": -4 / 6, mirrored(kept) + "..": (4 - 15) / 6}, abs=1e-6
    )
    fixed = SPEC.with_options(reverse_complement=False)
    assert spelt(decode_one(fixed, dna(sequence), rng).parts) == window


def test_shift_and_mutation():
    sequence = letters(40)
    rng = np.random.default_rng(0)
    moved = SPEC.with_options(reverse_complement=False, shift_bp=3)
    starts = set()
    for _ in range(60):
        parts = decode_one(moved, dna(sequence), rng)
        start = sequence.find(spelt(parts.parts))
        assert parts.coords[0, 0] == pytest.approx((start - 20) / 6)
        starts.add(start)
    assert starts == set(range(5, 12))
    assert spelt(decode_one(moved, dna(sequence[:24]), rng).parts) == sequence[:24]
    mutated = SPEC.with_options(reverse_complement=False, mutation_rate=0.4, window_bp=2000)
    long = letters(2000)
    text = spelt(decode_one(mutated, dna(long), rng).parts)[:2000]
    # A drawn base is the old one in a quarter of the cases.
    assert np.mean([a != b for a, b in zip(text, long, strict=True)]) == pytest.approx(
        0.3, abs=0.04
    )


def test_both_strands_are_windows_of_one_record():
    spec = SPEC.with_options(average_strands=True)
    windows = spec.windows
    assert windows is not None
    record = dna(letters(30))
    assert windows.count(record, spec.options) == 2 and windows.count(record, SPEC.options) == 1
    first, second = (
        windows.decode(record, spec.options, w)["genomics.window"].parts for w in range(2)
    )
    assert mirrored(spelt(first)) == spelt(second) != spelt(first)


def test_features_are_counts_of_both_strands():
    sequence = "ACGTACGGNTTAC"
    got = SPEC.features(dna(sequence), SPEC.options)
    tally: dict[str, int] = {}
    for i in range(len(sequence) - 3):
        word = sequence[i : i + 4]
        if "N" not in word:
            key = min(word, mirrored(word))
            tally[key] = tally.get(key, 0) + 1
    order = sorted({min(w, mirrored(w)) for w in map("".join, itertools.product("ACGT", repeat=4))})
    assert len(order) == 136
    assert got[:136].tolist() == [tally.get(word, 0) for word in order]
    assert got[136] == pytest.approx(6 / 12) and got[137] == 13
    np.testing.assert_array_equal(SPEC.features(dna(mirrored(sequence)), SPEC.options), got)
    assert SPEC.features(dna("NNNNN"), SPEC.options)[:137].sum() == 0


def test_preview():
    preview = SPEC.preview(dna(letters(100)), SPEC.options)
    assert preview.values == letters(100)[38:62] and preview.unit == "bp"
    wide = SPEC.with_options(window_bp=2000)
    assert wide.preview(dna(letters(1000)), wide.options).values == letters(1000)[300:700]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": "rnn"}, "'rnn'; accepted: conv, kmer"),
        ({"kmer": 9}, "kmer from 1 to 8"),
        ({"patch": 0}, "at least 1"),
        ({"motif_width": 14}, "at most 13"),
        ({"shift_bp": -1}, "shift_bp -1"),
        ({"mutation_rate": 1.0}, "below 1"),
    ],
)
def test_illegal_options(changes, message):
    with pytest.raises(UserError, match=message):
        SPEC.with_options(**changes)


# --------------------------------------------------------------------------- the stems


def test_tokenizers():
    first, second = dna(letters(24, 1)), dna(letters(24, 2))
    for spec in (SPEC, KMER):
        check_tokenizer(spec, decode_one(spec, first), decode_one(spec, second))


def make_stem(spec):
    (stream,) = spec.streams
    return spec.make_tokenizer(stream, D_MODEL, spec.options, nnx.Rngs(0))


def test_the_stem_reads_both_strands_alike():
    """Motif scores and words of a whole-window patch are those of the other strand."""
    spec = SPEC.with_options(patch=24)
    stem = make_stem(spec)
    sequence = letters(24)
    one, other = (
        run(stem, to_batch([decode_one(spec, dna(s))], 1)) for s in (sequence, mirrored(sequence))
    )
    np.testing.assert_allclose(one, other, atol=1e-5)
    single = spec.with_options(both_strands=False)
    stem = make_stem(single)
    one, other = (
        run(stem, to_batch([decode_one(single, dna(s))], 1)) for s in (sequence, mirrored(sequence))
    )
    assert np.abs(one - other).max() > 1e-3
