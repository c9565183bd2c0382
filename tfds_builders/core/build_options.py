"""What the person who builds decides: the key of patient hashes, burned-in text, accepted terms."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Collection, Iterator
from contextvars import ContextVar
from pathlib import Path

from multimed_jax.types import UserError
from tfds_builders.core.identity import default_key_file, load_key
from tfds_builders.core.planning import Names
from tfds_builders.core.records import SourceCard


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """Decisions of one build, the careful answer to each being the default.

    Attributes:
        hash_key_file: of the key that patient hashes are made with, made where it is missing; None
            is that of this account.
        accept_burned_in: take images whose header says that text is drawn into the pixels.
        accepted_licences: names of restricted sources whose terms were read and accepted.
    """

    hash_key_file: Path | None = None
    accept_burned_in: bool = False
    accepted_licences: frozenset[str] = frozenset()

    def check_terms(self, card: SourceCard) -> None:
        """Raises UserError where a source is restricted and its terms are not accepted."""
        if card.restricted and card.name not in self.accepted_licences:
            raise UserError(
                f"{card.name} is published under {card.licence!r}, whose terms restrict its use "
                f"({card.licence_forbids.rstrip('.')}); accepted: --accept_licence {card.name}, "
                "once you have read them and obtained the data under them"
            )

    def names(self, private_ids: Collection[str], namespace: str, data_dir: Path) -> Names:
        """How a source's ids are written: those named in `private_ids` as keyed hashes.

        Raises:
            UserError: as `load_key`, which is only asked where there are private ids.
        """
        if not private_ids:
            return Names()
        key = load_key(self.hash_key_file or default_key_file(), outside=data_dir)
        seal = functools.partial(key.seal, namespace)
        return Names(
            **{
                what: seal
                for what, name in (("sample", "sample_id"), ("group", "group_id"))
                if name in private_ids
            }
        )


_CURRENT: ContextVar[BuildOptions | None] = ContextVar("build_options", default=None)


@contextlib.contextmanager
def build_options(options: BuildOptions) -> Iterator[None]:
    """Builders made inside take these options; the stock command makes them without arguments."""
    token = _CURRENT.set(options)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_options() -> BuildOptions:
    """The options of the enclosing `build_options`, else the defaults."""
    return _CURRENT.get() or BuildOptions()
