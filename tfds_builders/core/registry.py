"""`python -m tfds_builders registry`: which sources serve the tasks of the MultiMed paper.

Everything on the page comes from the builders: their cards and `PAPER`. With a data folder the
cards of the built datasets add what was counted.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multimed_jax.types import UserError
from tfds_builders.core.base import MedicalBuilder
from tfds_builders.core.card import CARD_NAME
from tfds_builders.core.flags import Parser
from tfds_builders.core.overlap import find_built
from tfds_builders.core.paper import TASKS, PaperCitation

Builders = Mapping[str, type[MedicalBuilder]]
UNKNOWN = "not known"
_BEGIN, _END = "<!-- sources -->", "<!-- end of sources -->"
_HEAD = """\
# The paper's tasks and our sources

Made by `python -m tfds_builders registry --out docs/registry.md` from the builders; do not edit it.
With `--data_dir D` the page has the counts of what is built in D too.

The paper is Mo and Liang, "MultiMed: Massively Multimodal and Multitask Medical Understanding". The
counts that it lists sum to 2,465,822, not to its 2.56 million.

- `paper`: the source behind a count that the paper lists.
- `substitute`: serves the task; whether it is what the paper used is not known.

The paper's counts are by modality. The task beside one is that of the builder's labels; for which
task the paper used it is not known. "not known" stands where no count of the paper could be traced
to a source."""


def registry(argv: Sequence[str], builders: Builders) -> None:
    """Prints the page, or writes it and the table of sources into the named files.

    Raises:
        UserError: a wrong flag, a folder that is not there, a README without its markers.
    """
    parser = Parser("tfds_builders registry", allow_abbrev=False)
    parser.add_argument("--data_dir", type=Path, help="of built datasets, whose counts are added")
    parser.add_argument("--out", type=Path, metavar="FILE", help="written in place of printing")
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", help="whose table of sources is brought up to date"
    )
    args = parser.parse_args(argv)
    if args.out is not None and not args.out.parent.is_dir():
        raise UserError(f"the folder {args.out.parent} does not exist; accepted: one that does")
    built = read_counts(args.data_dir.expanduser()) if args.data_dir else None
    page = make_page(builders, built)
    if args.readme is not None:
        if not args.readme.is_file():
            raise UserError(f"the file {args.readme} does not exist; accepted: a README")
        text = with_sources(args.readme.read_text(encoding="utf-8"), builders)
        args.readme.write_text(text, encoding="utf-8")
    if args.out is None:
        print(page, end="")
        return
    args.out.write_text(page, encoding="utf-8")


def read_counts(data_dir: Path) -> dict[str, list[str]]:
    """By source, what its built datasets count: `original 1.0.0: 7,023 slice in 700 groups`.

    Raises:
        UserError: no such folder, no built dataset in it, a card that cannot be read.
    """
    if not data_dir.is_dir():
        raise UserError(f"the folder {data_dir} does not exist; accepted: one of built datasets")
    found: dict[str, list[str]] = defaultdict(list)
    for folder in find_built(data_dir, ()):
        source, *config = folder.relative_to(data_dir).parts
        try:
            card = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
            records = sum(sum(units.values()) for units in card["mm:counts"].values())
            groups = sum(card["mm:groups"].values())
            unit = card["mm:unit"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{folder / CARD_NAME} cannot be read; accepted: the card that a build writes"
            ) from None
        found[source].append(f"{' '.join(config)}: {records:,} ({unit}) in {groups:,} groups")
    return dict(found)


def make_page(builders: Builders, built: Mapping[str, Sequence[str]] | None = None) -> str:
    """The page in Markdown; a column of counts where `built` is given."""
    generated = [name for name, builder in builders.items() if _is_generated(builder)]
    real = {name: builder for name, builder in builders.items() if name not in generated}
    others = [name for name, builder in real.items() if not set(builder.CARD.tasks) & set(TASKS)]
    sections = [_HEAD, "## What the paper cites", _cited(real)]
    sections += ["## What serves each task", _serving(real, built)]
    lines = [f"Generated, for every task: {_names(generated)}."] if generated else []
    lines += [f"Of none of these tasks by themselves: {_names(others)}."] if others else []
    return "\n\n".join([*sections, *lines]) + "\n"


def source_table(builders: Builders) -> str:
    """All builders as a table, each with a link to its folder's README."""
    rows = [
        (
            f"[{name}]({name}/README.md)",
            ", ".join(builder.CARD.modalities),
            ", ".join(builder.CARD.tasks) or "-",
            builder.CARD.size,
            builder.CARD.licence,
        )
        for name, builder in builders.items()
    ]
    return _table(("source", "modality", "tasks", "published size", "licence"), rows)


def with_sources(text: str, builders: Builders) -> str:
    """A README with the table between its markers made anew. Raises UserError without markers."""
    if text.count(_BEGIN) != 1 or text.count(_END) != 1 or text.find(_BEGIN) > text.find(_END):
        raise UserError(f"the README has no table of sources; accepted: {_BEGIN} and {_END} in it")
    head, _, rest = text.partition(_BEGIN)
    return f"{head}{_BEGIN}\n\n{source_table(builders)}\n\n{_END}{rest.partition(_END)[2]}"


def _cited(builders: Builders) -> str:
    by_task: dict[str, list[tuple[str, PaperCitation]]] = {task: [] for task in TASKS}
    for name, builder in builders.items():
        for citation in builder.PAPER:
            by_task[citation.task].append((name, citation))
    rows = []
    for task, citations in by_task.items():
        rows += [(task, c.cited, c.really, "paper", _link(name)) for name, c in citations]
        if not citations:
            substitutes = len(_of_task(builders, task))
            rows.append((task, UNKNOWN, UNKNOWN, "substitute", f"{substitutes} below"))
    return _table(("task", "cited", "what it really is", "what we use", "source"), rows)


def _serving(builders: Builders, built: Mapping[str, Sequence[str]] | None) -> str:
    head = ("task", "source", "role", "what it is", "modality", "published size")
    rows = []
    for task in TASKS:
        for name, builder in _of_task(builders, task).items():
            card = builder.CARD
            cited = any(citation.task == task for citation in builder.PAPER)
            row = (
                task,
                _link(name),
                "paper" if cited else "substitute",
                card.title,
                ", ".join(card.modalities),
                card.size,
            )
            rows.append(row if built is None else (*row, "; ".join(built.get(name, ["-"]))))
    return _table(head if built is None else (*head, "built"), rows)


def _of_task(builders: Builders, task: str) -> Builders:
    return {name: builder for name, builder in builders.items() if task in builder.CARD.tasks}


def _is_generated(builder: type[MedicalBuilder]) -> bool:
    return builder.stream_splits is not MedicalBuilder.stream_splits


def _link(name: str) -> str:
    return f"[{name}](../tfds_builders/{name}/README.md)"


def _names(names: Sequence[str]) -> str:
    return ", ".join(_link(name) for name in names)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in r)} |" for r in lines)
