from __future__ import annotations

import numpy as np
import pytest
from flax import nnx

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.modalities import protein
from multimed_jax.types import UserError
from tests.modalities.streams import assert_missing, check_tokenizer, decode_one, run, to_batch

SPEC = protein.SPEC.with_options(max_residues=20)
AMINO = "ACDEFGHIKLMNPQRSTVWY"


def chain(sequence) -> dict:
    return {"protein": {"sequence": sequence}}


def test_residues_in_order_with_their_place():
    parts = decode_one(SPEC, chain(AMINO))
    assert parts.parts.tolist() == list(range(20))
    assert parts.coords[:, 0].tolist() == list(range(20))
    assert (parts.item == 0).all()
    (stream,) = SPEC.streams
    assert stream.kind == "residues" and stream.max_parts == 20


@pytest.mark.parametrize("sequence", ["mkv", b"MKV", np.array(b"MKV", object), "M K\nV*"])
def test_case_bytes_space_and_stop(sequence):
    assert decode_one(SPEC, chain(sequence)).parts.tolist() == [AMINO.index(c) for c in "MKV"]


def test_rare_and_ambiguous_letters():
    found = decode_one(SPEC, chain("UOBZJXuobzjx")).parts
    expected = [AMINO.index("C"), AMINO.index("K"), 20, 20, 20, 20]
    assert found.tolist() == expected * 2


@pytest.mark.parametrize(("sequence", "shown"), [("MK-V", "'-'"), ("M1K?", "'1\\?'"), ("M*K", "*")])
def test_other_characters_are_refused(sequence, shown):
    for function in (
        lambda: SPEC.decode(chain(sequence), SPEC.options, None),
        lambda: SPEC.features(chain(sequence), SPEC.options),
    ):
        with pytest.raises(DecodeError, match=shown.replace("*", r"\*")):
            function()


def test_long_chains_are_cropped_in_training_and_refused_at_evaluation():
    record = chain(AMINO * 3)
    starts = set()
    for seed in range(40):
        parts = decode_one(SPEC, record, np.random.default_rng(seed))
        place = parts.coords[:, 0].astype(int)
        assert (np.diff(place) == 1).all() and len(place) == 20
        assert parts.parts.tolist() == [i % 20 for i in place]
        starts.add(int(place[0]))
    assert min(starts) < 8 and max(starts) > 32 and max(starts) <= 40 and len(starts) > 15
    with pytest.raises(DecodeError, match="60 residues; accepted at evaluation: at most 20"):
        SPEC.decode(record, SPEC.options, None)
    assert SPEC.count(record, SPEC.options) == {"protein.chain": 20}


def test_missing_and_options():
    assert_missing(SPEC, {})
    assert_missing(SPEC, chain(""))
    assert_missing(SPEC, chain(b""))
    with pytest.raises(UserError, match="max_residues 0"):
        SPEC.with_options(max_residues=0)


def test_features_and_preview():
    features = SPEC.features(chain("AAIX"), SPEC.options)
    assert features[[0, AMINO.index("I"), 20]].tolist() == [0.5, 0.25, 0.25]
    assert features[-2] == pytest.approx(np.log(5))
    assert features[-1] == pytest.approx((1.8 + 1.8 + 4.5) / 4)
    preview = SPEC.preview(chain("A" * 70), SPEC.options)
    assert preview.values == "A" * 60 + "\n" + "A" * 10


def test_tokenizer():
    module = check_tokenizer(
        SPEC, decode_one(SPEC, chain("MKVLAW")), decode_one(SPEC, chain("WWGAVI"))
    )
    assert isinstance(module, nnx.Module)


def test_a_token_sees_two_neighbours_of_its_own_chain():
    (stream,) = SPEC.streams
    module = SPEC.make_tokenizer(stream, 8, SPEC.options, nnx.Rngs(0))

    def tokens(*sequences):
        return run(module, to_batch([decode_one(SPEC, chain(s)) for s in sequences], 16))[0]

    first, second = tokens("MKVLAWG"), tokens("MKVLAWC")
    changed = np.abs(first - second).max(axis=1) > 1e-4
    assert changed[:7].tolist() == [False] * 4 + [True] * 3
    table = np.asarray(module.table[...])
    index = [AMINO.index(c) for c in "MKV"]
    expected = sum(table[2 + shift, index[1 + shift]] for shift in (-1, 0, 1))
    # The index in the chain, 1, as 16 sines and 16 cosines.
    angle = 200.0 ** -np.linspace(0, 1, 16)
    expected = expected + np.concatenate([np.sin(angle), np.cos(angle)]) @ np.asarray(
        module.waves[...]
    )
    np.testing.assert_allclose(tokens("MKV")[1], expected, rtol=1e-4, atol=1e-5)
