"""How a worker of a Beam build comes to its records: it walks the source itself.

    position   0 ............. 64 ............. 128 .......... num_items
    block      |      0       |       1        |      2       |

A block is a range of positions in the order of `read_source`. A worker walks past what lies before
its block without touching it. A walk that has ended a block stays open in its process, so that one
who takes its blocks in order walks the source once in each pass.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from multimed_jax.types import UserError
from tfds_builders.core.quarantine import Quarantine
from tfds_builders.core.records import SourceItem
from tfds_builders.core.shards import Output
from tfds_builders.core.written import leave_json, read_json

# Small enough that a hundred volumes have work for two, large enough that a block's files (a dozen)
# cost little beside its records; and no more blocks than a file system likes to hold.
BLOCK_ITEMS = 64
MAX_BLOCKS = 512
CHANGED = "the source changed while it was read"
_LEARNT = "learnt.json"


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Ranges of the positions of a source, by the number of its items alone.

    Attributes:
        num_items: records and parts that `read_source` yields.
    """

    num_items: int

    @property
    def num_blocks(self) -> int:
        """One for `BLOCK_ITEMS` items, up to `MAX_BLOCKS`; one for an empty source too."""
        return min(MAX_BLOCKS, max(1, -(-self.num_items // BLOCK_ITEMS)))

    def bounds(self, number: int) -> tuple[int, int]:
        """First position of a block, and of the next."""
        start, stop = (self.num_items * k // self.num_blocks for k in (number, number + 1))
        return start, stop


class Counted:
    """Counts the items of a source as they pass.

    Attributes:
        number: so far.
    """

    def __init__(self, items: Iterator[SourceItem]) -> None:
        self.number = 0
        self._items = items

    def __iter__(self) -> Iterator[SourceItem]:
        for item in self._items:
            self.number += 1
            yield item

    def walk(self) -> None:
        """Counts all of them; no record is read."""
        for _ in self:
            pass


@dataclasses.dataclass(frozen=True)
class Source:
    """How a worker opens the source.

    Attributes:
        builder: class of the source.
        config: of the builder, by name where the class lists it.
        options: of the build.
        manual_dir: as `read_source` takes it.
        download_dir: of `DOWNLOADS`, where there are any.
        folder: of the runs.
        token: of this build alone, so that no walk of another is gone on with.
    """

    builder: Any
    config: Any
    options: Any
    manual_dir: Path
    download_dir: Path | None
    folder: str
    token: str

    @classmethod
    def of(cls, builder: Any, manual_dir: Path, output: Output) -> Source:
        """That of a builder that has walked it; leaves what it has learnt for the workers."""
        learnt = {name: getattr(builder, name) for name in builder.LEARNT}
        leave_json(output.folder / _LEARNT, learnt)
        config = builder.builder_config
        if config is not None and config.name in builder.builder_configs:
            config = config.name  # tfds takes a listed one by name alone
        return cls(
            type(builder),
            config,
            builder.options,
            manual_dir,
            builder.download_dir if builder.DOWNLOADS else None,
            str(output.folder),
            uuid.uuid4().hex,
        )

    def make(self) -> Any:
        """A builder that knows what `teach` left."""
        builder = self.builder(data_dir=self.folder, config=self.config, options=self.options)
        if self.download_dir is not None:
            builder.download_dir = self.download_dir
        for name, value in read_json(epath.Path(self.folder) / _LEARNT).items():
            setattr(builder, name, value)
        return builder


class Walk:
    """A walk through a source that can be gone on with.

    Attributes:
        position: of the item that comes next.
        quarantine: of the walk; what it holds belongs to the block at hand.
    """

    def __init__(
        self,
        source: Source,
        show: Callable[[str], str] = str,
        class_names: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """Starts at the first item.

        Args:
            source: that is walked.
            show: how the quarantine names records.
            class_names: those that a whole walk leaves. Where this one has not yet found them all
                it goes through the source once before it begins.
        """
        self._builder = source.make()
        self._manual_dir = source.manual_dir
        self._class_names = class_names
        self.quarantine = Quarantine(show)
        self._restart()

    def items(self, start: int, stop: int) -> Iterator[SourceItem]:
        """The items from position `start` to `stop`, without the latter.

        Raises:
            UserError: where the source has fewer.
        """
        while self.position < start:
            self._next()
        self.quarantine.take()
        while self.position < stop:
            yield self._next()

    def finish(self) -> None:
        """Goes on to the end. Raises UserError where there is a further item."""
        if next(self._items, None) is not None:
            raise UserError(f"{CHANGED}: it has more than {self.position} records or files")

    def close(self) -> None:
        """Lets go of what the walk holds open."""
        self._items.close()

    def _restart(self) -> None:
        self.position = 0
        # A generator in every builder; `close` is what its protocol lacks.
        self._items: Any = self._builder.read_source(self._manual_dir, self.quarantine)

    def _next(self) -> SourceItem:
        item = next(self._items, None)
        if item is None:
            raise UserError(f"{CHANGED}: it has only {self.position} records or files")
        if self._class_names is not None:
            wanted, self._class_names = self._class_names, None
            if self._builder.class_names() != wanted:
                for _ in self._items:
                    pass
                if self._builder.class_names() != wanted:
                    raise UserError(f"{CHANGED}: its classes are others")
                self._restart()
                return self._next()
        self.position += 1
        return item


# Walks that wait for the next block of their process, by pass. A walk costs up to minutes (a table
# of 10^5 rows, a million files), and runners offer no other place between two blocks.
_OPEN: list[tuple[str, Walk]] = []
_LOCK = threading.Lock()


@contextlib.contextmanager
def opened(which: str, start: int, make: Callable[[], Walk]) -> Iterator[Walk]:
    """A walk at or before position `start`: one that waits, else a new one.

    Args:
        which: names the build and its pass; walks of others are closed.
        start: position of the block.
        make: starts a walk.
    """
    walk = _take(which, start) or make()
    try:
        yield walk
    except BaseException:
        walk.close()
        raise
    with _LOCK:
        _OPEN.append((which, walk))


def _take(which: str, start: int) -> Walk | None:
    with _LOCK:
        for other in [pair for pair in _OPEN if pair[0] != which]:
            _OPEN.remove(other)
            other[1].close()
        fitting = [pair for pair in _OPEN if pair[1].position <= start]
        if not fitting:
            return None
        found = max(fitting, key=lambda pair: pair[1].position)
        _OPEN.remove(found)
        return found[1]


def close_walks() -> None:
    """Closes the walks that wait in this process, after a pass."""
    with _LOCK:
        while _OPEN:
            _OPEN.pop()[1].close()
