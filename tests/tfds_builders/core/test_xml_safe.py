"""core/xml_safe: the same tree as ElementTree, and no entity, fetch or bomb."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tfds_builders.core import xml_safe
from tfds_builders.core.records import UnreadableRecord
from tfds_builders.core.xml_safe import parse_xml, read_xml

DOCTYPE = '<!DOCTYPE article PUBLIC "-//NLM//DTD JATS//EN" "http://127.0.0.1:9/never.dtd">'


def test_the_tree_is_that_of_element_tree() -> None:
    text = "<a x='1'>one <b>two<!-- no --></b> &#x3b2; &lt; <c><![CDATA[<d>]]></c> end<?pi x?></a>"
    assert ElementTree.tostring(parse_xml(text.encode())) == ElementTree.tostring(
        ElementTree.fromstring(text)
    )
    long = f"<a>{'<b>text &amp; more</b> tail ' * 9000}</a>"
    ours = parse_xml(long.encode())
    assert "".join(ours.itertext()) == "text & more tail " * 9000


def test_a_doctype_is_accepted_and_not_loaded() -> None:
    root = parse_xml(f"{DOCTYPE}<article>x &alpha;&nbsp;&minus; y</article>".encode())
    assert root.text == "x \u03b1\u00a0\u2212 y"
    with pytest.raises(UnreadableRecord, match="entity that is not known"):
        parse_xml(f"{DOCTYPE}<article>&nosuchname;</article>".encode())
    with pytest.raises(UnreadableRecord, match="undefined entity"):
        parse_xml(b"<article>&alpha;</article>")


def laughs(depth: int) -> bytes:
    lines = ['<!ENTITY l0 "ha">']
    lines += [f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, depth)]
    return f"<!DOCTYPE a [{''.join(lines)}]><a>&l{depth - 1};</a>".encode()


@pytest.mark.parametrize(
    "content",
    [
        laughs(12),
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        b'<!DOCTYPE a [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x"> %p;]><a/>',
        b'<!DOCTYPE a [<!ENTITY x "y">]><a/>',
    ],
)
def test_declared_entities_are_refused_at_once(content: bytes) -> None:
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(UnreadableRecord, match="declares an entity"):
        parse_xml(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.perf_counter() - began < 1 and peak < 2_000_000


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = b"<a>" * 150 + b"</a>" * 150
    assert parse_xml(deep).tag == "a"
    with pytest.raises(UnreadableRecord, match="nests deeper than 200"):
        parse_xml(b"<a>" * 100_000)
    monkeypatch.setattr(xml_safe, "MAX_ELEMENTS", 5)
    with pytest.raises(UnreadableRecord, match="more than 5 elements"):
        parse_xml(b"<a>" + b"<b/>" * 5 + b"</a>")
    monkeypatch.setattr(xml_safe, "MAX_BYTES", 10)
    with pytest.raises(UnreadableRecord, match="more than 10 bytes"):
        parse_xml(b"<a>123456789</a>")


@pytest.mark.parametrize("content", [b"", b"<a>", b"<a></b>", b"no xml", b"\xff\xfe<", b"<a>\x00"])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(UnreadableRecord, match="no well-formed XML"):
        read_xml(tmp_path / "a.xml")


def test_an_unknown_encoding_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableRecord, match="no well-formed XML"):
        parse_xml(b'<?xml version="1.0" encoding="klingon"?><a/>')
    with pytest.raises(UnreadableRecord, match="cannot be opened"):
        read_xml(tmp_path / "missing.xml")
