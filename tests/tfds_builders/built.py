"""Builds a source in the tests of builders, and reads the finished dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import tensorflow_datasets as tfds

from tfds_builders.core.splits import SPLITS


def metadata_of(built: Any) -> dict[str, Any]:
    """The dataset's metadata, as read back from its folder."""
    return cast("dict[str, Any]", built.info.metadata)


def build(builder_cls: Any, manual_dir: Path, data_dir: Path, config: Any = None) -> Any:
    """Builds a source and opens the result as a user would, without the builder's code."""
    builder = builder_cls(data_dir=data_dir, config=config)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir))
    )
    return tfds.builder_from_directory(builder.data_dir)


def read(built: Any) -> Iterator[tuple[str, Any]]:
    """(split, record) of all records."""
    for split in SPLITS:
        source = built.as_data_source(split)
        for i in range(len(source)):
            yield split, source[i]
