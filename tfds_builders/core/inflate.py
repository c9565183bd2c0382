"""gzip, bzip2 and xz streams, unpacked in bounded steps and with bounded memory."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import IO, Any

# Large enough for xz at its highest level, which wants 65 MiB.
_XZ_MEMORY = 256 << 20
_CHUNK = 1 << 16
_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}


def is_compressed(file: IO[bytes]) -> bool:
    """Whether a file begins like one of the three kinds; its position stays."""
    head = file.read(6)
    file.seek(-len(head), 1)
    return _kind(head) is not None


def _kind(head: bytes) -> str | None:
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


class Inflater:
    """Reads the unpacked bytes of a file, never more at once than are asked for.

    Several streams one after the other count as one, as gzip's own command has it; zero bytes
    behind the last are padding.

    Raises:
        EOFError: the file ends within a stream, or holds something else behind one.
        zlib.error, OSError, lzma.LZMAError: the stream is damaged or wants too much memory.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._pending = file.read(_CHUNK)
        kind = _kind(self._pending)
        if kind is None:
            raise EOFError("it is no gzip, bzip2 or xz file")
        self._kind = kind
        self._stream = _new_stream(kind)

    def read(self, size: int = -1) -> bytes:
        """At most `size` unpacked bytes, b"" at the end."""
        size = _CHUNK if size < 0 else size
        while True:
            if self._stream.eof:
                if not self._next_stream():
                    return b""
            content = self._step(size)
            if content:
                return content

    def _next_stream(self) -> bool:
        self._pending = self._stream.unused_data or self._file.read(_CHUNK)
        while self._pending and not self._pending.strip(b"\0"):
            self._pending = self._file.read(_CHUNK)
        if not self._pending:
            return False
        self._pending = self._pending.lstrip(b"\0")
        if len(self._pending) < 6:
            self._pending += self._file.read(_CHUNK)
        if _kind(self._pending) != self._kind:
            raise EOFError("something else follows its last stream")
        self._stream = _new_stream(self._kind)
        return True

    def _step(self, size: int) -> bytes:
        # zlib hands back what it has not used; bz2 and lzma keep it and say when they need more.
        hungry = self._kind == "gz" or self._stream.needs_input
        if hungry and not self._pending:
            self._pending = self._file.read(_CHUNK)
            if not self._pending:
                raise EOFError("it ends within a stream")
        given, self._pending = (self._pending, b"") if hungry else (b"", self._pending)
        content = self._stream.decompress(given, size)
        if self._kind == "gz":
            self._pending = self._stream.unconsumed_tail
        return content


def _new_stream(kind: str) -> Any:
    if kind == "gz":
        return zlib.decompressobj(wbits=31)
    if kind == "bz2":
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
