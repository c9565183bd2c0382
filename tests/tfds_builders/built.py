"""What the tests of builders read from a finished dataset."""

from __future__ import annotations

from typing import Any, cast


def metadata_of(built: Any) -> dict[str, Any]:
    """The dataset's metadata, as read back from its folder."""
    return cast("dict[str, Any]", built.info.metadata)
