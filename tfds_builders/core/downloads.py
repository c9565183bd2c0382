"""Files fetched over https, each with the SHA-256 that it must have.

What is received grows in `<name>.<hash>.part` and gets its name once the hash is right, so a file
that can be seen is whole. A part that was left is continued where the server allows it (Range).

    5xx, 408, 429, time-out, lost connection, body too short     tried again, longer pauses
    other 4xx, a redirect off https, too many redirects          ends at once
    wrong hash                                                   the part is removed; a continued
                                                                 one is fetched again as a whole
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from multimed_jax.types import UserError
from tfds_builders.core.archives import unpack

MAX_REDIRECTS = 5
_CHUNK = 1 << 20
_RETRY_STATUS = (408, 429, 500, 502, 503, 504)
_REDIRECT_STATUS = (301, 302, 303, 307, 308)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Download:
    """A published file.

    Attributes:
        url: https.
        sha256: of the file, 64 hexadecimal digits. A source whose hashes nobody published or
            measured is obtained by hand instead.
        filename: under which it is kept, a plain name.
        unpack_to: folder into which an archive is unpacked beside it; "" where it is used as it is.
        max_bytes: above which a body is refused while it comes in.
    """

    url: str
    sha256: str
    filename: str
    unpack_to: str = ""
    max_bytes: int = 1 << 40

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"{self.filename}: the SHA-256 {self.sha256!r} is not 64 hex digits")
        for name in (self.filename, *filter(None, [self.unpack_to])):
            if name in ("", ".", "..") or Path(name).name != name or "\\" in name or "\0" in name:
                raise ValueError(f"{name!r} is no plain file name")


class _Retry(Exception):
    """A failure that may pass; the message says what it was."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to us: they are counted and their targets checked."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Downloader:
    """Fetches files into a folder.

    Args:
        folder: made where it is missing.
        http_on_loopback: accept plain http to this machine, which tests serve from.
        timeout_s: without a byte, after which a connection counts as lost.
        max_tries: of one file without any progress in between.
        pause_s: before the second try; doubled before each further one.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        folder: Path,
        http_on_loopback: bool = False,
        timeout_s: float = 30.0,
        max_tries: int = 6,
        pause_s: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.folder = folder
        self._http_on_loopback = http_on_loopback
        self._timeout_s = timeout_s
        self._max_tries = max_tries
        self._pause_s = pause_s
        self._sleep = sleep
        # This machine is never behind a proxy; other addresses follow the environment's.
        direct = [urllib.request.ProxyHandler({})] if http_on_loopback else []
        self._opener = urllib.request.build_opener(_NoRedirect, *direct)

    def fetch(self, item: Download) -> Path:
        """The file's path; nothing is fetched where it is there with the right hash.

        Raises:
            UserError: the address is not https, the server refuses, keeps failing, redirects to
                where it must not, or sends other content than the hash says.
        """
        self._check_address(item.url, item)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / item.filename
        if path.is_file() and file_sha256(path) == item.sha256:
            return path
        part = self.folder / f"{item.filename}.{item.sha256[:16]}.part"
        with _locked(part, item) as file:
            continued = os.fstat(file.fileno()).st_size > 0
            self._fill(file, item)
            if file_sha256(part) != item.sha256 and continued:
                # The part may stem from an older file of that address: once more, as a whole.
                file.truncate(0)
                self._fill(file, item)
            found = file_sha256(part)
            if found != item.sha256:
                part.unlink()
                raise UserError(
                    f"{item.url} has the SHA-256 {found}; accepted: {item.sha256} (the file was "
                    "changed by its publisher or on the way)"
                )
            os.fsync(file.fileno())
            os.replace(part, path)
        return path

    # --------------------------------------------------------------------------- one file

    def _fill(self, file: BinaryIO, item: Download) -> None:
        """Receives until the body is complete; tries again as long as that may help."""
        failures, pause_s = 0, self._pause_s
        while True:
            before = file.seek(0, os.SEEK_END)
            try:
                self._receive(file, item, before)
                return
            except _Retry as error:
                if file.seek(0, os.SEEK_END) > before:
                    failures, pause_s = 0, self._pause_s
                failures += 1
                if failures >= self._max_tries:
                    raise UserError(
                        f"{item.url} could not be fetched in {failures} tries: {error}; what was "
                        "received is kept and the next build goes on from there"
                    ) from None
                self._sleep(pause_s)
                pause_s *= 2

    def _receive(self, file: BinaryIO, item: Download, start: int) -> None:
        try:
            response = self._open(item, start)
            if response is None:
                return
            with response:
                start = self._position(file, response, start)
                expected = _content_length(response)
                received = 0
                while chunk := response.read(_CHUNK):
                    received += len(chunk)
                    if start + received > item.max_bytes:
                        file.truncate(0)
                        raise UserError(
                            f"{item.url} sends more than {item.max_bytes} bytes; accepted: at most "
                            "as many"
                        )
                    file.write(chunk)
                file.flush()
        # OSError holds time-outs, refused and lost connections.
        except (
            http.client.HTTPException,
            urllib.error.URLError,
            TimeoutError,
            ConnectionError,
        ) as error:
            raise _Retry(_short(error)) from None
        if expected is not None and received < expected:
            raise _Retry(f"the body has {received} of {expected} bytes")

    def _position(self, file: BinaryIO, response: Any, start: int) -> int:
        """Where the body belongs: behind what is there, or at the beginning."""
        sent_from = re.match(r"bytes (\d+)-", response.headers["Content-Range"] or "")
        if response.status != 206 or sent_from is None or int(sent_from[1]) != start:
            if response.status == 206:
                file.truncate(0)
                raise _Retry("the server sent another range than was asked for")
            start = 0
        file.truncate(start)
        file.seek(start)
        return start

    def _open(self, item: Download, start: int) -> Any:
        """The response behind at most `MAX_REDIRECTS` redirects; None where nothing is missing."""
        url = item.url
        for _ in range(MAX_REDIRECTS + 1):
            headers = {"User-Agent": "multimed_jax", "Accept-Encoding": "identity"}
            if start:
                headers["Range"] = f"bytes={start}-"
            request = urllib.request.Request(url, headers=headers)
            try:
                return self._opener.open(request, timeout=self._timeout_s)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code in _REDIRECT_STATUS and error.headers["Location"]:
                        url = urllib.parse.urljoin(url, error.headers["Location"])
                    elif error.code == 416 and start:  # nothing lies behind `start`
                        return None
                    elif error.code in _RETRY_STATUS:
                        raise _Retry(f"the server answers {error.code}") from None
                    else:
                        raise UserError(
                            f"{item.url} answers {error.code} ({error.reason}); accepted: 200"
                        ) from None
            self._check_address(url, item)
        raise UserError(
            f"{item.url} redirects more than {MAX_REDIRECTS} times; accepted: at most as often"
        )

    def _check_address(self, url: str, item: Download) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme == "https" and parts.hostname:
            return
        if parts.scheme == "http" and self._http_on_loopback and parts.hostname in _LOOPBACK:
            return
        if url == item.url:
            raise UserError(f"{item.filename} has the address {url}; accepted: https")
        # Of the target only the host: the rest may hold a signature.
        raise UserError(
            f"{item.url} redirects to {parts.scheme}://{parts.hostname}; accepted: https"
        )


def obtain(items: Sequence[Download], downloader: Downloader) -> Path:
    """Fetches all files and unpacks the archives among them; the folder that holds both.

    An archive that is unpacked already, by the note of its hash beside the folder, stays so.

    Raises:
        UserError: as `Downloader.fetch` and `archives.unpack`.
    """
    for item in items:
        path = downloader.fetch(item)
        if not item.unpack_to:
            continue
        into = downloader.folder / item.unpack_to
        note = downloader.folder / f"{item.unpack_to}.sha256"
        if into.is_dir() and note.is_file() and note.read_text() == item.sha256:
            continue
        note.unlink(missing_ok=True)
        if into.exists():
            shutil.rmtree(into)
        unpack(path, into)
        note.write_text(item.sha256)
    return downloader.folder


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _content_length(response: Any) -> int | None:
    text = response.headers["Content-Length"] or ""
    return int(text) if text.isascii() and text.isdigit() else None


def _short(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split())[:120] or type(error).__name__


@contextmanager
def _locked(part: Path, item: Download) -> Iterator[BinaryIO]:
    """The part, opened for this process alone."""
    with part.open("ab+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{item.filename} is being fetched by another process; wait until it has ended"
            ) from None
        yield file
