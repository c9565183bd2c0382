from __future__ import annotations

import hashlib

import numpy as np
import pytest
from flax import nnx

from multimed_jax.layers.decode_errors import DecodeError
from multimed_jax.modalities import scrna
from multimed_jax.types import UserError
from tests.modalities.streams import assert_missing, check_tokenizer, decode_one, run, to_batch

SPEC = scrna.SPEC.with_options(max_genes=16)


def cell(values, unit: str | bytes = "counts", seed: int = 0) -> dict:
    keys = np.random.default_rng(seed).choice(2**31 - 1, len(values), replace=False)
    return {
        "scrna": {
            "gene_keys": keys.astype(np.int32),
            "values": np.asarray(values, np.float32),
            "unit": unit,
        }
    }


def test_gene_key():
    digest = hashlib.sha256(b"CD3E").hexdigest()
    assert scrna.gene_key("CD3E") == int(digest[:8], 16) % 2**31
    assert scrna.gene_key("Cd3e") == scrna.gene_key("CD3E") != scrna.gene_key("CD3D")
    keys = [scrna.gene_key(f"GENE{i}") for i in range(2000)]
    assert min(keys) >= 0 and max(keys) < 2**31 and len(set(keys)) == 2000


def test_counts_become_log1p_per_10k_of_the_whole_cell():
    counts = np.random.default_rng(1).integers(1, 400, 50)
    record = cell(counts)
    parts = decode_one(SPEC, record)
    level = np.log1p(counts / counts.sum() * 1e4)
    order = sorted(range(50), key=lambda i: (-counts[i], record["scrna"]["gene_keys"][i]))[:16]
    assert (parts.parts[:, 0] == record["scrna"]["gene_keys"][order]).all()
    expected = np.minimum(np.ceil(level[order] / 0.2), 39)
    assert (parts.parts[:, 1] == expected).all()
    assert (parts.coords == 0).all()


def test_log1p_is_kept():
    record = cell([0.05, 0.5, 3.99, 100.0], b"log1p")
    assert decode_one(SPEC, record).parts[:, 1].tolist() == [39, 20, 3, 1]


def test_zeros_are_no_genes():
    record = cell([0.0, 2.0, 0.0, 3.0], "log1p")
    parts = decode_one(SPEC, record)
    assert parts.parts[:, 0].tolist() == record["scrna"]["gene_keys"][[3, 1]].tolist()
    assert_missing(SPEC, cell([0.0, 0.0]))
    assert_missing(SPEC, cell([]))
    assert_missing(SPEC, {})


def test_order_of_the_record_does_not_matter():
    values = np.random.default_rng(1).integers(1, 5, 60)  # many ties at the cut
    record = cell(values)
    order = np.random.default_rng(2).permutation(60)
    shuffled = {
        "scrna": {
            "gene_keys": record["scrna"]["gene_keys"][order],
            "values": record["scrna"]["values"][order],
            "unit": "counts",
        }
    }
    assert (decode_one(SPEC, record).parts == decode_one(SPEC, shuffled).parts).all()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (cell([1.0, 2.0], "scaled"), "'scaled'; accepted: counts, log1p"),
        (cell([1.0, -2.0], "log1p"), "negative or non-finite"),
        (cell([1.0, np.nan]), "negative or non-finite"),
        (cell([1.0, np.inf]), "negative or non-finite"),
    ],
)
def test_illegal_cells(record, message):
    for function in (
        lambda: SPEC.decode(record, SPEC.options, None),
        lambda: SPEC.features(record, SPEC.options),
    ):
        with pytest.raises(DecodeError, match=message):
            function()


def test_lengths_must_agree():
    record = cell([1.0, 2.0])
    record["scrna"]["gene_keys"] = record["scrna"]["gene_keys"][:1]
    with pytest.raises(DecodeError, match="one length"):
        SPEC.decode(record, SPEC.options, None)


def test_each_gene_comes_once():
    for keys in ([7, 7], [9, 7, 9], [-1, 4]):
        record = cell([1.0] * len(keys), "log1p")
        record["scrna"]["gene_keys"] = np.array(keys, np.int32)
        with pytest.raises(DecodeError, match="negative or comes twice"):
            SPEC.decode(record, SPEC.options, None)


# -------------------------------------------------------------------- highly variable genes

VARIABLE = SPEC.with_options(select="variable", num_variable=4)


def source(name: str, ranked, modalities=("scrna",)) -> dict:
    metadata = {"namespace": name, "modalities": list(modalities)}
    return metadata if ranked is None else {**metadata, "highly_variable": ranked}


def fitted(*sources: dict):
    assert VARIABLE.fit is not None
    return VARIABLE.fit(VARIABLE.options, sources)


def test_sources_take_turns():
    assert fitted(source("a", [5, 8, 2])).variable_genes == (5, 8, 2)
    both = fitted(
        source("a", [5, 8, 2, 1]), source("images", None, ("mri",)), source("b", [7, 5, 9])
    )
    assert both.variable_genes == (5, 7, 8, 2)
    # What is given stays, as in a stored run; "top" needs no ranking.
    assert VARIABLE.fit is not None and VARIABLE.fit(both, [source("c", [3])]) == both
    assert VARIABLE.fit(SPEC.options, [source("c", None)]) == SPEC.options


def test_a_source_without_a_ranking_is_refused():
    for ranked in (None, []):
        with pytest.raises(UserError, match="'pbmc' has no 'highly_variable'"):
            fitted(source("liver", [1]), source("pbmc", ranked))
    with pytest.raises(UserError, match="no source of the run holds cells"):
        fitted(source("images", None, ("mri",)))
    with pytest.raises(UserError, match="no variable_genes"):
        VARIABLE.count(cell([1.0, 2.0]), VARIABLE.options)
    with pytest.raises(UserError, match="'best' and num_variable 2000"):
        SPEC.with_options(select="best")


def test_only_variable_genes_are_shown_and_the_total_is_over_all():
    counts = np.array([50.0, 3.0, 0.0, 20.0, 7.0])
    record = cell(counts)
    keys = record["scrna"]["gene_keys"].tolist()
    for limit in (16, 2):
        spec = VARIABLE.with_options(
            variable_genes=(keys[4], 12345, keys[2], keys[1], keys[3]), max_genes=limit
        )
        parts = decode_one(spec, record).parts
        assert parts[:, 0].tolist() == [keys[3], keys[4], keys[1]][:limit]
        expected = np.ceil(np.log1p(np.array([20, 7, 3]) / 80 * 1e4) / 0.2)
        assert parts[:, 1].tolist() == np.minimum(expected, 39).tolist()[:limit]
    unseen = VARIABLE.with_options(variable_genes=(keys[2], 999))
    assert unseen.count(record, unseen.options) == {}
    assert unseen.decode(record, unseen.options, None) == {}


def test_thousands_of_genes():
    record = cell(np.random.default_rng(0).integers(0, 4, 6000))
    wide = SPEC.with_options(max_genes=3000)
    parts = decode_one(wide, record).parts
    assert len(parts) == 3000 and (np.diff(parts[:, 1]) <= 0).all()
    ranked = record["scrna"]["gene_keys"][::2].tolist()
    spec = VARIABLE.with_options(num_variable=2500, max_genes=3000)
    assert spec.fit is not None
    options = spec.fit(spec.options, [source("a", ranked)])
    assert len(options.variable_genes) == 2500
    chosen = spec.decode(record, options, None)["scrna.cell"].parts
    values = dict(
        zip(record["scrna"]["gene_keys"].tolist(), record["scrna"]["values"], strict=True)
    )
    shown = {key for key in ranked[:2500] if values[key] > 0}
    assert set(chosen[:, 0].tolist()) == shown
    assert spec.count(record, options) == {"scrna.cell": len(shown)}


def test_illegal_options():
    with pytest.raises(UserError, match="common divisor"):
        SPEC.with_options(first_rows=100, second_rows=50)
    with pytest.raises(UserError, match="max_genes 0"):
        SPEC.with_options(max_genes=0)


def test_features_and_preview():
    record = cell([1.0, 2.0, 4.0, 3.0], "log1p")
    record["scrna"]["gene_keys"] = np.array([5, 2048 + 5, 7, 2**31 - 1], np.int32)
    features = SPEC.features(record, SPEC.options)
    expected = np.zeros(2048)
    expected[[5, 7, 2047]] = [3.0, 4.0, 3.0]
    np.testing.assert_allclose(features, expected)
    preview = SPEC.preview(record, SPEC.options)
    assert preview.values.tolist() == [4.0, 3.0, 2.0, 1.0]
    assert preview.labels[0] == "00000007" and preview.unit


def test_tokenizer():
    check_tokenizer(
        SPEC, decode_one(SPEC, cell(range(1, 30))), decode_one(SPEC, cell(range(1, 9), seed=4))
    )


def test_genes_that_no_one_has_met_have_tokens():
    """Keys are hashed: every 31-bit one has a row, also the largest."""
    record = cell([3.0, 2.0, 1.0])
    record["scrna"]["gene_keys"] = np.array([0, 2**31 - 1, 2**31 - 2], np.int32)
    parts = decode_one(SPEC, record)
    assert parts.parts[:, 0].tolist() == [0, 2**31 - 1, 2**31 - 2]
    module = SPEC.make_tokenizer(SPEC.streams[0], 8, SPEC.options, nnx.Rngs(0))
    tokens = run(module, to_batch([parts], 3))[0]
    first, second = np.asarray(module.first[...]), np.asarray(module.second[...])
    gate, level = np.asarray(module.gate[...]), np.asarray(module.bin[...])
    for token, (key, place) in zip(tokens, parts.parts.tolist(), strict=True):
        table = first[key % len(first)] + second[key // len(first) % len(second)]
        np.testing.assert_allclose(token, table * gate[place] + level[place], rtol=1e-5)


def test_genes_are_told_apart_by_both_tables():
    (stream,) = SPEC.streams
    options = SPEC.options
    module = SPEC.make_tokenizer(stream, 8, options, nnx.Rngs(0))
    # The same row of the first table, another one of the second; a wrapped key; another level.
    pairs = [
        (11, 5),
        (11 + options.first_rows, 5),
        (11 + options.first_rows * options.second_rows, 5),
        (11, 6),
    ]
    parts = decode_one(SPEC, cell([1.0, 1.0, 1.0, 1.0], "log1p"))
    parts.parts[:] = pairs
    tokens = run(module, to_batch([parts], 4))[0]
    assert np.abs(tokens[0] - tokens[1]).max() > 0.1
    np.testing.assert_array_equal(tokens[0], tokens[2])
    assert np.abs(tokens[0] - tokens[3]).max() > 0.01
    table = np.asarray(module.first[...])[11] + np.asarray(module.second[...])[0]
    expected = table * np.asarray(module.gate[...])[5] + np.asarray(module.bin[...])[5]
    np.testing.assert_allclose(tokens[0], expected, rtol=1e-5)
