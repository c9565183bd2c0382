"""Archives from strangers, unpacked into a folder that appears only when all of it is there.

zip, tar (plain, gz, bz2, xz) and single gz files. Every name is checked before anything is written,
in a tar as it comes along; a name that cannot be taken ends the whole: nothing is dropped silently.

    names    absolute, `..`, drive letters, backslashes, NUL and control characters, twice the same,
             a file where a folder must be
    kinds    links, devices, pipes, sparse and encrypted members
    sizes    number of members, bytes in all, bytes unpacked for each byte of the archive

Sizes are counted while they are written, so that a header that lies does not help.
"""

from __future__ import annotations

import dataclasses
import io
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from multimed_jax.types import UserError
from tfds_builders.core.inflate import Inflater, is_compressed

TAR_NAMES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
NAMES = (".zip", *TAR_NAMES, ".gz")
MAX_DEPTH = 64
_MAX_NAME, _MAX_PART = 4096, 255
_CHUNK = 1 << 20
# Between two members a tar holds headers alone; longer ones are made to fill memory.
_HEADER_BYTES = 4 << 20
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an archive may become.

    Attributes:
        max_members: files and folders.
        max_bytes: of all files.
        max_ratio: bytes unpacked for each byte of the archive. Text of genes packs 1:10, masks and
            empty volumes up to 1:200; a bomb begins at 1:1000, which is the limit of zlib.
    """

    max_members: int = 2_000_000
    max_bytes: int = 1 << 41
    max_ratio: float = 300.0


class _Unsafe(Exception):
    """Why an archive is refused, as the end of a sentence."""


def unpack(archive: Path, into: Path, limits: Limits | None = None) -> Path:
    """Unpacks an archive into the new folder `into`, whole or not at all.

    Raises:
        UserError: no archive of a known kind, damaged, with a member that is not accepted, or
            larger than the limits; `into` exists.
    """
    kind = next((name for name in NAMES if archive.name.lower().endswith(name)), None)
    if kind is None:
        raise UserError(f"{archive.name} is no known archive; accepted: {', '.join(NAMES)}")
    if into.exists():
        raise UserError(f"the folder {into} exists already; accepted: a new one")
    into.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=into.parent, prefix=f".{into.name}.", suffix=".part"))
    try:
        writer = _Writer(scratch, archive, limits or Limits())
        {".zip": _unpack_zip, ".gz": _unpack_gz}.get(kind, _unpack_tar)(archive, writer)
        scratch.chmod(0o755)
        os.rename(scratch, into)
    except _Unsafe as error:
        raise UserError(f"the archive {archive.name} {error}") from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
        raise UserError(
            f"the archive {archive.name} is damaged: {' '.join(str(error).split())[:120]}"
        ) from None
    except (NotImplementedError, RuntimeError) as error:  # zipfile: method or password
        raise UserError(f"the archive {archive.name} cannot be read: {error}") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise UserError(f"the archive {archive.name} is damaged: {error}") from None  # bz2
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return into


def safe_parts(name: str) -> tuple[str, ...]:
    """The folders and the file of a member's name; raises for one that leads elsewhere."""
    if _CONTROL.search(name):
        raise _Unsafe(f"has the name {name!r} with a control character; accepted: plain names")
    for wrong, what in (
        (name.startswith("/"), "absolute name"),
        (bool(_DRIVE.match(name)), "name with a drive letter"),
        ("\\" in name, "name with a backslash"),
        (".." in name.split("/"), "name that leads out of its folder"),
    ):
        if wrong:
            raise _Unsafe(f"has the {what} {name!r}; accepted: names inside the archive")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    longest = max((len(os.fsencode(part)) for part in parts), default=0)
    if len(name) > _MAX_NAME or longest > _MAX_PART or len(parts) > MAX_DEPTH:
        raise _Unsafe(
            f"has a name of {len(name)} characters in {len(parts)} parts; accepted: "
            f"{_MAX_NAME} in {MAX_DEPTH}, {_MAX_PART} bytes in each"
        )
    return parts


class _Writer:
    """Writes members below a folder and keeps the limits."""

    def __init__(self, folder: Path, archive: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._most_by_ratio = limits.max_ratio * max(archive.stat().st_size, 1)
        self._kinds: dict[tuple[str, ...], bool] = {(): True}  # whether it is a folder
        self._bytes = 0

    def check_total(self, num_bytes: float) -> None:
        """Raises where so many bytes in all are too many."""
        if num_bytes > self._limits.max_bytes:
            raise _Unsafe(f"unpacks to more than {self._limits.max_bytes} bytes")
        if num_bytes > self._most_by_ratio:
            raise _Unsafe(
                f"unpacks to more than {self._limits.max_ratio:g} times its size; accepted: less, "
                "since such archives are made to fill disks"
            )

    def claim(self, name: str, folder: bool) -> tuple[str, ...]:
        """Checks a member's name against the rules and all earlier names."""
        parts = safe_parts(name)
        if not parts and not folder:
            raise _Unsafe(f"has a file without a name ({name!r})")
        for length in range(1, len(parts)):
            if not self._kinds.setdefault(parts[:length], True):
                raise _Unsafe(f"has {'/'.join(parts[:length])!r} as a file and as a folder")
        if parts in self._kinds and not (folder and self._kinds[parts]):
            raise _Unsafe(f"has the name {name!r} twice; accepted: every name once")
        self._kinds[parts] = folder
        if len(self._kinds) > self._limits.max_members:
            raise _Unsafe(f"has more than {self._limits.max_members} members")
        return parts

    def make_folder(self, parts: tuple[str, ...]) -> None:
        self._folder.joinpath(*parts).mkdir(parents=True, exist_ok=True)

    def write(self, parts: tuple[str, ...], read: Callable[[int], bytes]) -> int:
        """Writes a claimed file; the number of bytes."""
        path = self._folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o644), "wb") as file:
            while chunk := read(_CHUNK):
                written += len(chunk)
                self._bytes += len(chunk)
                self.check_total(self._bytes)
                file.write(chunk)
        return written


def _unpack_zip(archive: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        claimed = []
        for member in members:
            # `filename` is cut at a NUL; `orig_filename` is what the archive says.
            name = member.orig_filename
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _Unsafe(f"has {name!r}, a link or device; accepted: files and folders")
            if member.flag_bits & 1:
                raise _Unsafe(f"has {name!r}, which is encrypted; accepted: files without password")
            folder = name.endswith("/") or kind == stat.S_IFDIR
            claimed.append((member, writer.claim(name, folder), folder))
        writer.check_total(sum(member.file_size for member in members))
        for member, parts, folder in claimed:
            if folder:
                writer.make_folder(parts)
                continue
            with file.open(member) as content:
                written = writer.write(parts, content.read)
            if written != member.file_size:
                raise EOFError(f"{member.filename} has {written} of {member.file_size} bytes")


def _unpack_gz(archive: Path, writer: _Writer) -> None:
    with archive.open("rb") as file:
        source = Inflater(file)
        writer.write(writer.claim(archive.name[: -len(".gz")], folder=False), source.read)


class _Metered(io.RawIOBase):
    """The unpacked bytes of a tar, with an allowance that headers must keep to."""

    def __init__(self, source: Any, writer: _Writer) -> None:
        self._source = source
        self._writer = writer
        self._total = 0
        self._tail = b""
        self.allowed = 0

    def read(self, size: int = -1) -> bytes:
        content = self._source.read(size)
        self._total += len(content)
        self._tail = (self._tail + content)[-4 * tarfile.RECORDSIZE :]
        self._writer.check_total(self._total - tarfile.RECORDSIZE)  # padding is no content
        if self._total > self.allowed:
            raise _Unsafe(f"has a header of more than {_HEADER_BYTES} bytes")
        return content

    def allow(self, more: int) -> None:
        """So many bytes may be read from here."""
        self.allowed = self._total + more

    def ends_at(self, offset: int) -> bool:
        """Whether nothing but zeros, and at least one block of them, lies behind `offset`."""
        behind = self._tail[max(0, len(self._tail) - (self._total - offset)) :]
        while not behind.strip(b"\0"):
            self.allow(_CHUNK)
            behind = self.read(_CHUNK)
            if not behind:
                return self._total - offset >= tarfile.BLOCKSIZE
        return False


def _unpack_tar(archive: Path, writer: _Writer) -> None:
    with archive.open("rb") as file:
        source: IO[bytes] | Inflater = Inflater(file) if is_compressed(file) else file
        metered = _Metered(source, writer)
        metered.allow(_HEADER_BYTES)
        with tarfile.open(fileobj=metered, mode="r|") as tar:
            while (member := tar.next()) is not None:
                if not (member.isreg() or member.isdir()) or member.issparse():
                    raise _Unsafe(
                        f"has {member.name!r}, a link, device or sparse file; accepted: files and "
                        "folders"
                    )
                parts = writer.claim(member.name, member.isdir())
                metered.allow(member.size + _HEADER_BYTES)
                if member.isdir():
                    writer.make_folder(parts)
                else:
                    content = tar.extractfile(member)
                    assert content is not None  # it is a regular file
                    if writer.write(parts, content.read) != member.size:
                        raise EOFError(f"{member.name} is cut short")
                metered.allow(_HEADER_BYTES)
                # A stream needs none of them again, and a million take a gigabyte.
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
            # tarfile takes a damaged header for the end.
            if not metered.ends_at(tar.offset):
                raise EOFError("its end is missing, or it goes on behind a damaged header")
