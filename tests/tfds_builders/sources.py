"""What the tests of image sources share: small pictures, accepted terms, records by their ids."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.tfds_builders.built import build, read
from tests.tfds_builders.images import write
from tfds_builders.core.build_options import BuildOptions, build_options
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import SourceRecord, expand


def pixels(seed: int, colours: int = 1, size: tuple[int, int] = (6, 8)) -> np.ndarray:
    """Random 8-bit values [row, column] or [row, column, 3]."""
    shape = size if colours == 1 else (*size, colours)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def encoded(values: np.ndarray, kind: str = "PNG") -> bytes:
    """The values as the bytes of an image file."""
    out = io.BytesIO()
    Image.fromarray(values).save(out, kind)
    return out.getvalue()


def write_picture(path: Path, seed: int, colours: int = 1) -> bytes:
    """Writes a picture in the format of the path's ending and gives its bytes."""
    kinds = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF"}
    content = encoded(pixels(seed, colours), kinds[path.suffix])
    write(path, content)
    return content


def build_accepted(builder_cls: Any, source: Path, data: Path, config: str | None = None) -> Any:
    """Builds a source whose terms are accepted."""
    accepted = BuildOptions(accepted_licences=frozenset({builder_cls.CARD.name}))
    with build_options(accepted):
        return build(builder_cls, source, data, config)


def index(
    builder_cls: Any, source: Path, data: Path, config: str | None = None
) -> list[SourceRecord]:
    """The records of a source as they are read, without a build."""
    quarantine = Quarantine()
    builder = builder_cls(data_dir=data, config=config)
    return list(expand(builder.read_source(source, quarantine), quarantine))


def by_sample(built: Any) -> dict[str, tuple[str, Any]]:
    """Sample id -> (split, record); no group lies in two splits and no id occurs twice."""
    found: dict[str, tuple[str, Any]] = {}
    homes: dict[bytes, set[str]] = {}
    for split, record in read(built):
        name = record["sample_id"].decode()
        assert name not in found
        found[name] = split, record
        homes.setdefault(record["group_id"], set()).add(split)
    assert all(len(where) == 1 for where in homes.values())
    return found


def groups_of(records: dict[str, tuple[str, Any]]) -> dict[str, str]:
    """Sample id -> group id."""
    return {name: record["group_id"].decode() for name, (_, record) in records.items()}
