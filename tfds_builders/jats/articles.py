"""An article in JATS XML: its ids, title, abstract and figures.

    <fig id="F1"><label>Figure 1</label><caption><title>..</title><p>..</p></caption>
      <graphic xlink:href="1471-F1"/></fig>          the file: 1471-F1.jpg beside the article

Source of the elements: NISO Z39.96-2019, JATS Archiving and Interchange 1.2.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from tfds_builders.core.records import UnreadableRecord
from tfds_builders.core.xml_safe import read_xml

ID_TYPES = ("pmc", "pmcid", "doi", "pmid", "publisher-id")
SUFFIXES = (".jpg", ".jpeg", ".png")
_NOT_TEXT = ("tex-math", "object-id")
_BLOCKS = ("p", "title", "sec", "list-item", "label", "disp-formula")
_BLANKS = re.compile(r"\s+")


@dataclasses.dataclass(frozen=True)
class Figure:
    """One `<fig>`.

    Attributes:
        name: its id, or its number in the article where it has none; unique in the article.
        label: such as "Figure 1".
        caption: title and paragraphs, without markup.
        path: of the image; None where no such file lies beside the article.
    """

    name: str
    label: str
    caption: str
    path: Path | None


@dataclasses.dataclass(frozen=True)
class Article:
    """What the builder takes from an article; texts are "" where it has none."""

    name: str
    title: str
    abstract: str
    licence: str
    figures: tuple[Figure, ...]


def read_article(path: Path, fallback_name: str) -> Article | None:
    """Reads an article; None where the XML is something else (its root is no `<article>`).

    Args:
        path: of the XML file; figures are looked for in its folder.
        fallback_name: of an article that has no id.

    Raises:
        UnreadableRecord: see `core.xml_safe.read_xml`.
    """
    root = read_xml(path)
    if root.tag != "article":
        return None
    meta = root.find("front/article-meta")
    if meta is None:
        raise UnreadableRecord("has no front/article-meta")
    return Article(
        name=_article_name(meta) or fallback_name,
        title=plain_text(meta.find("title-group/article-title")),
        abstract=plain_text(_abstract(meta)),
        licence=_licence(meta),
        figures=tuple(_figures(root, path.parent)),
    )


def plain_text(element: Element | None) -> str:
    """The text below an element: markup dropped, blocks parted by a blank, white space united."""
    return "" if element is None else _BLANKS.sub(" ", "".join(_pieces(element))).strip()


def _pieces(element: Element) -> Iterator[str]:
    if element.tag not in _NOT_TEXT:
        edge = " " if element.tag in _BLOCKS else ""
        yield edge + (element.text or "")
        for child in element:
            yield from _pieces(child)
            yield child.tail or ""
        yield edge


def _article_name(meta: Element) -> str:
    found = {item.get("pub-id-type"): plain_text(item) for item in meta.findall("article-id")}
    for kind in ID_TYPES:
        if kind in found and found[kind]:
            number = found[kind].upper().removeprefix("PMC")
            return f"PMC{number}" if kind.startswith("pmc") else f"{kind}:{found[kind]}"
    return ""


def _abstract(meta: Element) -> Element | None:
    """The abstract proper: graphical ones and digests have a type."""
    return next((a for a in meta.findall("abstract") if a.get("abstract-type") is None), None)


def _licence(meta: Element) -> str:
    licence = meta.find("permissions/license")
    if licence is None:
        return plain_text(meta.find("permissions/copyright-statement"))
    return _href(licence) or plain_text(licence)


def _href(element: Element) -> str:
    names = [name for name in element.attrib if name.split(":")[-1] == "href"]
    return element.attrib[names[0]].strip() if names else ""


def _figures(root: Element, folder: Path) -> Iterator[Figure]:
    seen: set[str] = set()
    for number, element in enumerate(root.iter("fig"), start=1):
        name = (element.get("id") or "").strip() or str(number)
        name = f"{name}#{number}" if name in seen else name
        seen.add(name)
        graphic = next(element.iter("graphic"), None)
        yield Figure(
            name=name,
            label=plain_text(element.find("label")),
            caption=plain_text(element.find("caption")),
            path=None if graphic is None else _image(folder, _href(graphic)),
        )


def _image(folder: Path, href: str) -> Path | None:
    """The file of a reference, with its extension or without; never outside the folder."""
    name = re.split(r"[/\\]", href)[-1]
    if not name or name.startswith("."):
        return None
    places = [folder / name] if Path(name).suffix.lower() in SUFFIXES else []
    places += [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    return next((place for place in places if place.is_file()), None)
