"""XML from strangers, read into a tree without entities, without fetching, in bounded memory.

A DOCTYPE is accepted and the DTD it names is never loaded. Any entity that a file declares ends
the reading before it can be expanded ("billion laughs"). References to names that a DTD would
declare (`&alpha;`) are looked up in HTML's table of characters and refused if it lacks them.
"""

from __future__ import annotations

import html.entities
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from tfds_builders.core.records import UnreadableRecord

# Ten times the longest articles; what is inside is bounded with it.
MAX_BYTES = 64_000_000
MAX_ELEMENTS = 1_000_000
MAX_DEPTH = 200
_CHUNK = 65_536


def read_xml(path: Path) -> Element:
    """The root of an XML file; names keep their prefix as written (`xlink:href`).

    Raises:
        UnreadableRecord: where the file is missing, no well-formed XML, declares an entity, names
            an unknown one, or is larger than the limits above.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableRecord(f"cannot be opened ({error.strerror})") from error
    return parse_xml(content)


def parse_xml(content: bytes) -> Element:
    """As `read_xml`, from bytes."""
    if len(content) > MAX_BYTES:
        raise UnreadableRecord(f"has more than {MAX_BYTES} bytes")
    tree = _Tree()
    try:
        for at in range(0, len(content), _CHUNK):
            tree.parser.Parse(content[at : at + _CHUNK], False)
        tree.parser.Parse(b"", True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise UnreadableRecord(f"is no well-formed XML: {str(error)[:80]}") from error
    return tree.builder.close()


class _Tree:
    """Builds elements from the events of expat and refuses the dangerous ones."""

    def __init__(self) -> None:
        self.builder = TreeBuilder()
        self._depth = self._number = 0
        self.parser: Any = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self.builder.data
        self.parser.EntityDeclHandler = _refuse_entity
        self.parser.ExternalEntityRefHandler = _refuse_external
        self.parser.SkippedEntityHandler = self._skipped

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._number += 1
        if self._depth > MAX_DEPTH or self._number > MAX_ELEMENTS:
            raise UnreadableRecord(
                f"nests deeper than {MAX_DEPTH} or has more than {MAX_ELEMENTS} elements"
            )
        self.builder.start(name, attributes)

    def _end(self, name: str) -> None:
        self._depth -= 1
        self.builder.end(name)

    def _skipped(self, name: str, is_parameter: bool) -> None:
        if is_parameter:
            return
        key = f"{name};"
        if key not in html.entities.html5:
            raise UnreadableRecord("names an entity that is not known")
        self.builder.data(html.entities.html5[key])


def _refuse_entity(*declaration: Any) -> None:
    raise UnreadableRecord("declares an entity; accepted: files without")


def _refuse_external(*reference: Any) -> int:
    raise UnreadableRecord("refers to an external entity; accepted: files without")
