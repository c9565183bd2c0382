"""jats: both ways of naming figure files, damaged articles, the real subsets by ElementTree."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import tensorflow_datasets as tfds

from multimed_jax.types import UserError
from tests.tfds_builders.built import metadata_of
from tests.tfds_builders.images import jpeg, jpeg_size, smooth_image, write
from tfds_builders.core.splits import SPLITS
from tfds_builders.jats.articles import read_article
from tfds_builders.jats.jats_dataset_builder import Builder

HEAD = '<!DOCTYPE article PUBLIC "-//NLM//DTD JATS//EN" "JATS-archivearticle1.dtd">'


def article(number: int, figures: str) -> str:
    return f"""{HEAD}<article xmlns:xlink="http://www.w3.org/1999/xlink"><front><article-meta>
      <article-id pub-id-type="doi">10.1/x{number}</article-id>
      <article-id pub-id-type="pmc">{number}</article-id>
      <title-group><article-title>Title <italic>{number}</italic></article-title></title-group>
      <permissions><license xlink:href="http://licence/{number}"><p>free</p></license></permissions>
      <abstract abstract-type="graphical"><p>not this</p></abstract>
      <abstract><sec><title>Aim</title><p>To test {number}.</p></sec><p>Done.</p></abstract>
      </article-meta></front><body><p>text</p>{figures}</body></article>"""


def figure(name: str, caption: str, href: str) -> str:
    return f"""<fig id="{name}"><label>Figure {name}</label><caption>{caption}</caption>
      <graphic xlink:href="{href}"/></fig>"""


def captions(number: int) -> tuple[str, str]:
    """Caption markup of an article's first figure, and the text expected of it."""
    markup = (
        f"<title>Cells {number}.</title><p>T<sub>4</sub> &alpha;\n of <bold>A</bold></p><p>B</p>"
    )
    return markup, f"Cells {number}. T4 \u03b1 of A B"


def make_source(folder: Path) -> Path:
    for i in range(5):
        figures = figure("F1", captions(i)[0], f"art{i}-F1")
        figures += f"<fig-group>{figure('F2', f'<p>Second {i}</p>', f'sub/../f2_{i}.jpg')}"
        figures += f"{figure('F3', '', 'none')}</fig-group>"
        figures += figure("F1", f"<p>No file {i}</p>", f"../../art{i + 1 if i < 4 else 0}-F1")
        write(folder / f"PMC{i}" / "a.nxml", article(i, figures).encode())
        write(folder / f"PMC{i}" / f"art{i}-F1.jpg", jpeg(smooth_image(2 * i)))
        write(folder / f"PMC{i}" / f"f2_{i}.jpg", jpeg(smooth_image(2 * i + 1)))
    write(folder / "PMC0" / "manifest.xml", b"<dar/>")
    return folder


def build(manual_dir: Path, data_dir: Path) -> Any:
    builder = Builder(data_dir=data_dir)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir))
    )
    return tfds.builder_from_directory(builder.data_dir)


def read(built: Any) -> dict[str, tuple[str, Any]]:
    found = {}
    for split in SPLITS:
        source = built.as_data_source(split)
        for i in range(len(source)):
            found[source[i]["sample_id"].decode()] = (split, source[i])
    return found


def test_captions_and_figures(tmp_path: Path) -> None:
    built = build(make_source(tmp_path / "in"), tmp_path / "out")
    found = read(built)
    assert len(found) == 15
    for i in range(5):
        first = found[f"PMC{i}/F1"][1]
        assert first["text"]["text"].decode() == captions(i)[1]
        assert first["label"] == b"Figure F1" and first["title"].decode() == f"Title {i}"
        assert first["abstract"].decode() == f"Aim To test {i}. Done."
        assert first["licence"].decode() == f"http://licence/{i}"
        encoded = first["figure"]["encoded"]
        assert encoded == (tmp_path / "in" / f"PMC{i}" / f"art{i}-F1.jpg").read_bytes()
        assert jpeg_size(encoded) == (first["figure"]["height"], first["figure"]["width"])
        assert found[f"PMC{i}/F2"][1]["figure"]["encoded"] == jpeg(smooth_image(2 * i + 1))
        # A path out of the folder finds nothing, and the repeated id got its number.
        last = found[f"PMC{i}/F1#4"][1]
        assert last["figure"]["encoded"] == b"" and last["text"]["text"].decode() == f"No file {i}"
        splits = {found[f"PMC{i}/{name}"][0] for name in ("F1", "F2", "F1#4")}
        assert len(splits) == 1
    metadata = metadata_of(built)
    assert metadata["tasks"] == [] and metadata["class_names"] == {}
    assert metadata["left_out"] == {
        "XML file that is no article": 1,
        "figure without a caption": 5,
    }


def test_damaged_articles_and_images_are_quarantined_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Builder, "MAX_BAD_RATE", 0.5)
    folder = make_source(tmp_path / "in")
    bomb = b'<!DOCTYPE article [<!ENTITY a "b">]><article>&a;</article>'
    write(folder / "x" / "bomb.nxml", bomb)
    write(folder / "x" / "cut.xml", article(9, "")[:200].encode())
    write(folder / "PMC2" / "f2_2.jpg", b"no image")
    built = build(folder, tmp_path / "out")
    items = {
        item["sample_id"]: item["reason"] for item in metadata_of(built)["quarantine"]["items"]
    }
    assert set(items) == {"x/bomb.nxml", "x/cut.xml", "PMC2/F2"}
    assert "declares an entity" in items["x/bomb.nxml"]
    assert "its figure is no JPEG" in items["PMC2/F2"]
    assert len(read(built)) == 14


def test_one_article_alone_is_split_within(tmp_path: Path) -> None:
    figures = "".join(figure(f"F{i}", f"<p>Number {i}</p>", f"f{i}") for i in range(9))
    write(tmp_path / "in" / "a.xml", article(1, figures).encode())
    built = build(tmp_path / "in", tmp_path / "out")
    assert metadata_of(built)["split_mode"] == "within_group"
    assert len(read(built)) == 9


def test_a_folder_without_articles(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=r"no \.nxml or \.xml file under .*; expected layout"):
        build(tmp_path / "in", tmp_path / "out")


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_real_articles(shared_data: Path) -> None:
    numbers = {}
    for path in sorted((shared_data / "pmc_oa_jats").glob("*.nxml")):
        found = read_article(path, path.stem)
        root = ElementTree.parse(path).getroot()
        pmc = [e.text for e in root.iter("article-id") if e.get("pub-id-type") == "pmc"]
        assert found is not None and found.name == f"PMC{pmc[0]}"
        figures = list(root.iter("fig"))
        assert len(found.figures) == len(figures)
        for ours, theirs in zip(found.figures, figures, strict=True):
            caption = theirs.find("caption")
            assert caption is not None and ours.name == theirs.get("id")
            assert squeezed(ours.caption) == squeezed("".join(caption.itertext()))
            assert ours.path is None
        title = root.find("front/article-meta/title-group/article-title")
        assert title is not None and squeezed(found.title) == squeezed("".join(title.itertext()))
        numbers[path.stem] = len(figures)
    assert numbers == {
        "1471-2180-11-174": 4,
        "ehp-116-1694": 3,
        "mds526": 2,
        "pone.0046493": 4,
    }
    assert read_article(shared_data / "pmc_oa_jats" / "pubmed-29768149.xml", "x") is None


def test_real_figures(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "elife_jats_with_figures"
    found = read(build(folder, tmp_path))
    assert len(found) == 5
    for name, (_, record) in found.items():
        path = folder / "elife-32671" / f"{name.split('/')[-1]}.jpg"
        assert record["figure"]["encoded"] == path.read_bytes()
        size = (record["figure"]["height"], record["figure"]["width"])
        assert jpeg_size(path.read_bytes()) == size
        assert "(A" in record["text"]["text"].decode()
