from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import pytest

from multimed_jax.layers import subwords
from multimed_jax.modalities import text
from multimed_jax.modalities.vocabulary import train
from multimed_jax.types import UserError
from tests.modalities.streams import assert_missing, check_tokenizer, decode_one

SPEC = text.SPEC.with_options(max_tokens=24)
VOCABULARY = files("multimed_jax.modalities.vocabulary") / subwords.VOCABULARY


def document(value) -> dict:
    return {"text": {"text": value}}


def test_any_bytes_come_back():
    rng = np.random.default_rng(0)
    for length in (1, 2, 3, 17, 400):
        for _ in range(20):
            data = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
            assert subwords.to_bytes(subwords.encode(data)) == data
    for byte in range(256):
        assert subwords.to_bytes(subwords.encode(bytes([byte]))) == bytes([byte])


def test_any_unicode_comes_back():
    rng = np.random.default_rng(1)
    points = rng.integers(1, 0x10FFFF, 5000)
    string = "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)
    for value in (string, " a  b\n\n\tc ", "naïve ΔF508 β-catenin 37 °C 肺炎 🫁", "\u0000\ufeff"):
        assert subwords.to_bytes(subwords.encode(value.encode())).decode() == value
    lone = document("a\ud800b")
    assert subwords.to_bytes(subwords.encode(text.record_bytes(lone))) == b"a\xed\xa0\x80b"


def test_special_tokens_in_a_text_are_text():
    value = "a <mask> b <pad><end>"
    ids = subwords.encode(value.encode())
    special = [subwords.special_id(name) for name in train.SPECIAL_TOKENS]
    assert special == [0, 1, 2, 3]
    assert not set(special) & set(ids.tolist())
    assert subwords.to_bytes(ids).decode() == value
    assert subwords.to_bytes(np.array([2, *ids.tolist(), 3, 0])).decode() == value


def test_vocabulary_has_all_ids_once():
    model = json.loads(VOCABULARY.read_text("utf-8"))["model"]
    assert sorted(model["vocab"].values()) == list(range(subwords.VOCABULARY_SIZE))


def test_short_and_long_texts():
    short = document("Consolidation of the left lower lobe.")
    ids = subwords.encode(short["text"]["text"].encode())
    parts = decode_one(SPEC, short)
    assert (parts.parts == ids).all() and (parts.coords[:, 0] == np.arange(len(ids))).all()
    long = document(b" ".join(f"word{i}".encode() for i in range(200)))
    ids = subwords.encode(long["text"]["text"])
    for limit in (24, 25, 1):
        spec = text.SPEC.with_options(max_tokens=limit)
        parts = decode_one(spec, long)
        head, tail = -(-limit // 2), limit // 2
        positions = [*range(head), *range(len(ids) - tail, len(ids))]
        assert parts.coords[:, 0].tolist() == positions
        assert (parts.parts == ids[positions]).all()


def test_missing():
    assert_missing(SPEC, {})
    assert_missing(SPEC, document(""))
    assert_missing(SPEC, document(b""))


def test_parts_may_be_written_to():
    record = document("cough and fever")
    decode_one(SPEC, record).parts[:] = 0
    assert decode_one(SPEC, record).parts.any()


def test_features_and_preview():
    record = document("fever fever fever cough")
    features = SPEC.features(record, SPEC.options)
    counts: dict[int, int] = {}
    for identity in subwords.encode(b"fever fever fever cough").tolist():
        counts[identity] = counts.get(identity, 0) + 1
    expected = np.zeros(4096)
    for identity, number in counts.items():
        expected[identity] = np.log(1 + number)
    np.testing.assert_allclose(features, expected / np.sqrt((expected**2).sum()), rtol=1e-5)
    assert SPEC.preview(record, SPEC.options).values == "fever fever fever cough"
    assert SPEC.preview(document(b"a\xff"), SPEC.options).values == "a\ufffd"


def test_tokenizer():
    check_tokenizer(
        SPEC,
        decode_one(SPEC, document("pneumonia")),
        decode_one(SPEC, document("no finding in this chest")),
    )


def test_illegal_limit():
    with pytest.raises(UserError, match="max_tokens 0"):
        SPEC.with_options(max_tokens=0)


# ------------------------------------------------------------------------ training one

ARTICLE = """<article><front><article-meta><title-group><article-title>A <italic>small</italic>
title</article-title></title-group><abstract><p>We saw it <xref>[1]</xref> twice.</p></abstract>
</article-meta></front><body><sec><title>Methods</title><p>Heat at 37 &#176;C.<table><tr><td>9</td>
</tr></table></p></sec></body><back><ref-list><ref>Nobody 1999</ref></ref-list></back></article>"""


def test_jats_is_read_as_text():
    blocks = list(train.jats_text(ARTICLE))
    assert blocks == ["A small title", "We saw it twice.", "Methods", "Heat at 37 °C."]


def test_training_is_deterministic_and_bounded(tmp_path):
    source = tmp_path / "a.xml"
    source.write_text(ARTICLE * 1)
    plain = tmp_path / "b.txt"
    plain.write_text("the heart and the heat and the hearing\n" * 9)
    outputs = []
    for name in ("one.json", "two.json"):
        out = tmp_path / name
        arguments = ["--input", str(source), str(plain), "--size", "300", "--output", str(out)]
        assert train.main(arguments) == 0
        outputs.append(out.read_bytes())
    assert outputs[0] == outputs[1]
    vocabulary = json.loads(outputs[0])["model"]["vocab"]
    assert 260 < len(vocabulary) <= 300 and "he" in vocabulary


@pytest.mark.parametrize(
    ("content", "size", "message"),
    [("<article>", "300", "cannot be read"), (ARTICLE, "100", "at least 260")],
)
def test_training_errors_are_one_sentence(tmp_path, capsys, content, size, message):
    source = tmp_path / "a.xml"
    source.write_text(content)
    out = tmp_path / "out.json"
    assert train.main(["--input", str(source), "--size", size, "--output", str(out)]) == 2
    assert message in capsys.readouterr().err and not out.exists()


def test_shipped_vocabulary_is_what_the_command_makes(shared_data, tmp_path):
    articles = ("1471-2180-11-174.nxml", "ehp-116-1694.nxml", "pone.0046493.nxml")
    paths = [shared_data / "pmc_oa_jats" / name for name in articles]
    paths.append(shared_data / "elife_jats_with_figures" / "elife-32671" / "manuscript.xml")
    out = tmp_path / "vocabulary.json"
    assert train.main(["--input", *map(str, paths), "--output", str(out)]) == 0
    made, shipped = json.loads(out.read_text("utf-8")), json.loads(VOCABULARY.read_text("utf-8"))
    assert made["model"] == shipped["model"]
