"""Ids of people as keyed hashes: without the key nobody can list ids and compare.

The key lies in a file of its own, outside of every dataset, readable by its owner alone. Whoever
has it can tell which hash belongs to a known id; without it a hash says nothing. A lab that builds
a source in two places takes the file along, so that one patient keeps one hash.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
from pathlib import Path

from multimed_jax.types import UserError

KEY_BYTES = 32
_HEX = re.compile(rf"[0-9a-f]{{{2 * KEY_BYTES}}}\s*", re.ASCII)
# 64 bits: two of a million ids meet with a probability of 3e-8.
_DIGITS = 16


def default_key_file() -> Path:
    """The key of this account, below its configuration folder.

    Raises:
        UserError: the account has no home folder.
    """
    base = os.environ.get("XDG_CONFIG_HOME")
    try:
        folder = Path(base) if base else Path.home() / ".config"
    except RuntimeError:
        raise UserError(
            "there is no home folder for the key of patient hashes; accepted: --hash_key FILE"
        ) from None
    return folder / "multimed_jax" / "hash_key"


class HashKey:
    """A secret key and the hash made with it (HMAC of SHA-256, RFC 2104)."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "HashKey(...)"

    def seal(self, namespace: str, name: str) -> str:
        """16 hexadecimal digits that stand for `name` in a source."""
        message = f"{namespace}\x1f{name}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:_DIGITS]


def load_key(path: Path, outside: Path) -> HashKey:
    """The key in a file; where there is no file, a new key that only its owner can read.

    Args:
        path: of the key.
        outside: a folder that may be handed on, in which the key must not lie.

    Raises:
        UserError: where the file lies below `outside`, others can read it, it holds no key, or it
            cannot be made.
    """
    path = path.expanduser()
    if path.resolve().is_relative_to(outside.expanduser().resolve()):
        raise UserError(
            f"the key file {path} lies in the data folder {outside}; accepted: a place outside, "
            "so that the key is not handed on with the records"
        )
    try:
        if not path.exists():
            _make(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise UserError(f"the key file {path} has the mode {mode:o}; accepted: 600 (chmod 600)")
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise UserError(f"the key file {path} cannot be read or made: {reason}") from None
    if not _HEX.fullmatch(text):
        raise UserError(
            f"the key file {path} holds no key; accepted: {2 * KEY_BYTES} hexadecimal digits, or "
            "no file yet (one is made)"
        )
    return HashKey(bytes.fromhex(text.strip()))


def _make(path: Path) -> None:
    """Writes a key under another name and links it: a second process sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".hash_key_")  # of mode 600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
        os.link(name, path)
    except FileExistsError:  # another process was faster; its key is taken
        pass
    finally:
        os.unlink(name)
