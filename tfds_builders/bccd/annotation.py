"""Pascal VOC annotations: boxes with a name, from XML that may declare nothing of its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from tfds_builders.core.records import UnreadableRecord

# An annotation of a photograph with a hundred boxes has 40 kB.
MAX_BYTES = 1_000_000
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclasses.dataclass(frozen=True)
class Box:
    """A box in pixels of the image as published, corners included or not.

    Attributes:
        name: of what it holds.
        left: first column.
        top: first row.
        right: last column.
        bottom: last row.
    """

    name: str
    left: int
    top: int
    right: int
    bottom: int

    @property
    def is_empty(self) -> bool:
        """Whether it has no width or no height."""
        return self.right <= self.left or self.bottom <= self.top


class _Declared(Exception):
    pass


def read_boxes(path: Path) -> list[Box]:
    """The boxes of an annotation in their order.

    A document with a DOCTYPE is refused before an entity could be declared: entities can blow up a
    small file or read others. The annotation's own path of its image is not used.

    Raises:
        UnreadableRecord: where the file is missing, too large, no XML, declares a document type or
            holds a box without a name or four whole numbers.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableRecord(f"has an annotation that cannot be opened ({error.strerror})") from (
            error
        )
    if len(content) > MAX_BYTES:
        raise UnreadableRecord(
            f"has an annotation of {len(content)} bytes; accepted: up to {MAX_BYTES}"
        )
    try:
        _refuse_declarations(content)
        root = ElementTree.fromstring(content)
    except _Declared as error:
        raise UnreadableRecord("has an annotation with a document type; accepted: none") from error
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise UnreadableRecord("has an annotation that is no XML") from error
    return [_box(item) for item in root.iter("object")]


def _refuse_declarations(content: bytes) -> None:
    def refuse(*_: object) -> None:
        raise _Declared

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.Parse(content, True)


def _box(item: ElementTree.Element) -> Box:
    name = (item.findtext("name") or "").strip()
    corners = [(item.findtext(f"bndbox/{key}") or "").strip() for key in _CORNERS]
    try:
        left, top, right, bottom = (int(text) for text in corners)
    except ValueError as error:
        raise UnreadableRecord(
            "has an annotation with a box that lacks one of four whole numbers"
        ) from error
    if not name:
        raise UnreadableRecord("has an annotation with a box without a name")
    return Box(name, left, top, right, bottom)
