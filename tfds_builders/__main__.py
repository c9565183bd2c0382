"""`python -m tfds_builders`: `list`, `build NAME ...`, `audit --data_dir D ...` and `registry`."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import importlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from multimed_jax.types import UserError

FOLDER = Path(__file__).resolve().parent
COMMANDS = ("build", "list", "audit", "registry")
# What a user can mend: a full disk, a folder without permission, a read-only file system.
_USER_ERRNOS = (errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT)


def source_names() -> list[str]:
    """The names of all builders: the folders that hold one."""
    return sorted(path.parent.name for path in FOLDER.glob("*/*_dataset_builder.py"))


def load_builder(name: str) -> Any:
    """The builder class of a source. Raises UserError for an unknown name."""
    names = source_names()
    if name not in names:
        raise UserError(f"there is no source {name!r}{_hint(name, names)}; {_accepted(names)}")
    return importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder").Builder


def _hint(value: str, accepted: Sequence[str]) -> str:
    close = difflib.get_close_matches(value, accepted, n=1, cutoff=0.4)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _accepted(names: Sequence[str]) -> str:
    return f"accepted: {', '.join(names)}"


def pick_config(name: str, builder_cls: Any, config: str | None) -> str | None:
    """The config to build: the given one, else the source's first. UserError for an unknown one."""
    configs = [item.name for item in builder_cls.BUILDER_CONFIGS]
    if config is None:
        return configs[0] if configs else None
    if config.startswith("{"):
        return config  # JSON of a config's own fields, as in `tfds build`
    if builder_cls.get_builder_config(config) is None:
        accepted = _accepted(configs) if configs else "it has none"
        raise UserError(
            f"the source {name!r} has no config {config!r}{_hint(config, configs)}; {accepted}"
        )
    return config


# -------------------------------------------------------------------------------- build


def build(argv: Sequence[str]) -> None:
    """Builds the named sources with the flags of `tfds build` and those of `core.flags`."""
    from tfds_builders.core.build_options import build_options
    from tfds_builders.core.flags import read_options

    options, rest = read_options(argv)
    args = _parse(rest)
    names = [*args.positional_datasets, *args.datasets]
    if not names:
        raise UserError(f"build needs the name of a source; {_accepted(source_names())}")
    for name in options.accepted_licences:
        load_builder(name)  # for its message, where the name is not known
    with build_options(options):
        for name in names:
            _build_one(name, args)


def _parse(argv: Sequence[str]) -> Any:
    from tensorflow_datasets.scripts.cli import build as stock
    from tensorflow_datasets.scripts.cli import cli_utils

    parse = cli_utils.make_flags_parser(stock.Args, description="Builds a source.")
    usage = io.StringIO()
    try:
        with contextlib.redirect_stderr(usage):
            return parse(["tfds_builders build", *argv])
    except SystemExit as stop:
        if not stop.code:
            raise
        # argparse puts some hundred lines of usage before the sentence that matters.
        reason = usage.getvalue().strip().splitlines()[-1].split("error: ")[-1]
        raise UserError(f"{reason}; --help lists the accepted flags") from None


def _build_one(given: str, args: Any) -> None:
    from tfds_builders.core.build_options import current_options

    name, _, config = given.partition("/")
    if config and args.generation.config:
        raise UserError(f"{given!r} and --config={args.generation.config!r} both name a config")
    builder_cls = load_builder(name)
    current_options().check_terms(builder_cls.CARD)
    config = pick_config(name, builder_cls, config or args.generation.config)
    if args.generation.config_idx is None and not (config or "").startswith("{"):
        existing = _existing(builder_cls, args, config)
        if existing is not None:
            print(f"{existing} exists already; nothing was done (--overwrite builds it again)")
            return
    # The stock command takes a folder, and a config apart from it.
    generation = dataclasses.replace(
        args.generation, config=None if args.generation.config_idx is not None else config
    )
    where = str(FOLDER / name)
    if generation.beam_pipeline_options is not None:
        # By the name of its module: from a folder it gets one that no worker can import.
        generation = dataclasses.replace(generation, imports=builder_cls.__module__)
        where = name
    args = dataclasses.replace(
        args, positional_datasets=[where], datasets=[], generation=generation
    )
    data_dir = Path(args.paths.data_dir).expanduser()
    with _tidy(data_dir / name), _tidy(data_dir / "downloads"):
        args.execute()


def _existing(builder_cls: Any, args: Any, config: str | None) -> Path | None:
    """The finished dataset, where there is one and no flag asks for another build."""
    if args.debug.overwrite or args.debug.fail_if_exists or args.generation.update_metadata_only:
        return None
    builder = builder_cls(data_dir=args.paths.data_dir, config=config)
    return Path(builder.data_dir) if builder.is_prepared() else None


@contextlib.contextmanager
def _tidy(folder: Path) -> Iterator[None]:
    """After a failed build removes the folders and notes that tfds made for it, if it made them."""
    had_folder = folder.exists()
    try:
        yield
    except BaseException:
        if not had_folder and folder.exists():
            for path in sorted(folder.rglob("*"), reverse=True):
                if path.name == "metadata.json" and path.parent.name == ".config":
                    path.unlink()
                elif path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
            if not any(folder.iterdir()):
                folder.rmdir()
        raise


# -------------------------------------------------------------------------------- audit


def audit(argv: Sequence[str]) -> int:
    """Compares built datasets with each other; 1 where one leaks into another, else 0."""
    from tfds_builders.core import overlap
    from tfds_builders.core.flags import Parser

    parser = Parser("tfds_builders audit", allow_abbrev=False)
    parser.add_argument("--data_dir", type=Path, required=True, help="of the built datasets")
    parser.add_argument("names", nargs="*", metavar="NAME", help="source or source/config")
    args = parser.parse_args(argv)
    data_dir = args.data_dir.expanduser()
    built = []
    for folder in overlap.find_built(data_dir, args.names):
        source = folder.relative_to(data_dir).parts[0]
        found = None if _is_generated(source) else overlap.read_built(folder, data_dir)
        if found is None:
            print(f"{folder.relative_to(data_dir)} is generated: it takes no part")
        else:
            built.append(found)
    text, num_leaks = overlap.report(built, list(overlap.find_links(built)))
    print(text)
    return 1 if num_leaks else 0


def _is_generated(source: str) -> bool:
    from tfds_builders.core.base import MedicalBuilder

    if source not in source_names():
        return False
    return load_builder(source).stream_splits is not MedicalBuilder.stream_splits


# --------------------------------------------------------------------------------- list


def list_sources() -> str:
    """The sources as a table: one line each, then the terms and how to obtain it."""
    head = ("source", "modality", "tasks", "unit", "size", "licence")
    rows, notes = [], []
    for name in source_names():
        builder_cls = load_builder(name)
        card = builder_cls.CARD
        modalities, tasks = ", ".join(card.modalities), ", ".join(card.tasks) or "-"
        rows.append((name, modalities, tasks, card.unit, card.size, card.licence))
        configs = ", ".join(config.name for config in builder_cls.BUILDER_CONFIGS)
        notes.append(
            f"{name}{f' ({configs})' if configs else ''}\n"
            f"    forbids: {card.licence_forbids}"
            f"{' (--accept_licence)' if card.restricted else ''}\n"
            f"    obtain:  {card.how_to_obtain}"
        )
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head) - 1)]
    widths.append(0)
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in [head, *rows]
    ]
    return "\n".join([*lines, "", *notes])


# --------------------------------------------------------------------------------- entry


def find_user_error(error: BaseException) -> str | None:
    """The sentence of the UserError behind an error, however often tfds wrapped it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, UserError):
            return str(current)
        if isinstance(current, OSError) and current.errno in _USER_ERRNOS:
            return f"cannot write or read {current.filename}: {current.strerror}"
        current = current.__cause__ or current.__context__
    return None


def main(argv: Sequence[str]) -> int:
    """Runs a command; the exit code."""
    try:
        if not argv or argv[0] not in COMMANDS:
            given = argv[0] if argv else ""
            hint = _hint(given, COMMANDS)
            raise UserError(f"the command is {given!r}{hint}; {_accepted(COMMANDS)}")
        if argv[0] == "list":
            print(list_sources())
            return 0
        import tensorflow_datasets as tfds
        from absl import logging

        # tfds warns of every folder that it is about to make.
        logging.set_verbosity(logging.ERROR)
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()
        if argv[0] == "audit":
            return audit(argv[1:])
        if argv[0] == "registry":
            from tfds_builders.core.registry import registry

            registry(argv[1:], {name: load_builder(name) for name in source_names()})
            return 0
        build(argv[1:])
    except Exception as error:
        sentence = find_user_error(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
