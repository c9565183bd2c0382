"""Rules on the text of the source that neither ruff nor the type checker knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "multimed_jax"

MAX_LINES = 300
LONGER_FILES: frozenset[str] = frozenset()  # a file is split instead of listed here

# Modules that run code from a file, or read objects out of one.
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
UNSAFE_METHODS = {"read_pickle", "to_pickle", "torch.load", "joblib.load"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}

# The word of every kind of text, not only of the modality; imports of it are still noticed.
COMMON_WORDS = {"text"}


def sources(*folders: str) -> list[Path]:
    return sorted(
        path
        for folder in folders
        for path in (REPOSITORY / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    )


def label(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def extension_names() -> set[str]:
    """Names of modalities and tasks: the files of the two folders."""
    files = [*(PACKAGE / "modalities").glob("*.py"), *(PACKAGE / "tasks").glob("*.py")]
    return {path.stem for path in files if path.stem != "__init__"}


def docstrings(tree: ast.AST) -> set[ast.AST]:
    found = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            found |= {s.value for s in body if isinstance(s, ast.Expr)}
    return found


def named_extensions(tree: ast.AST, names: set[str]) -> Iterator[tuple[int, str]]:
    """Lines that name a modality or task: a string such as "mri" or "mri.slice", or an import."""
    prose = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            if re.fullmatch(r"[\w./:]+", node.value):
                for word in set(re.split(r"[./:]", node.value)) & (names - COMMON_WORDS):
                    yield node.lineno, word
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module in ("multimed_jax.modalities", "multimed_jax.tasks"):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif re.match(r"multimed_jax\.(modalities|tasks)\.", node.module):
                yield node.lineno, node.module
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if re.match(r"multimed_jax\.(modalities|tasks)\.", alias.name):
                    yield node.lineno, alias.name


def unsafe_reads(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines that import an object reader, run text as code, or let NumPy unpickle."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
            yield from ((node.lineno, name) for name in names & UNSAFE_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] in UNSAFE_MODULES:
                yield node.lineno, node.module
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
                yield node.lineno, node.func.id
            if isinstance(node.func, ast.Attribute):
                names = {node.func.attr, ast.unparse(node.func)}
                yield from ((node.lineno, name) for name in names & UNSAFE_METHODS)
            for keyword in node.keywords:
                allowed = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg == "allow_pickle" and not allowed:
                    yield node.lineno, "allow_pickle"


def silent_defaults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines that read a config or options by `.get`, which answers for a key that is not there."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "get"
        ):
            owner = ast.unparse(node.func.value)
            if re.search(r"(^|[._])(config|cfg|options)$", owner):
                yield node.lineno, ast.unparse(node)


def test_files_are_short():
    lines = {
        label(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources("multimed_jax", "tfds_builders", "configs")
    }
    longer = {name: number for name, number in lines.items() if number > MAX_LINES}
    assert set(longer) == LONGER_FILES, f"longer than {MAX_LINES} lines: {longer}"


def test_modalities_and_tasks_are_named_in_their_own_file_alone():
    names = extension_names()
    assert {"mri", "eeg", "tumor"} <= names
    named = []
    for path in sources("multimed_jax"):
        own = {path.stem} if path.parent.name in ("modalities", "tasks") else set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for line, name in named_extensions(tree, names - own):
            named.append(f"{label(path)}:{line} names {name}")
    assert not named, "\n".join(named)


@pytest.mark.parametrize(
    ("rule", "folders"),
    [
        (unsafe_reads, ("multimed_jax", "tfds_builders", "configs")),
        (silent_defaults, ("multimed_jax", "tfds_builders", "configs")),
    ],
)
def test_no_file_breaks_the_rule(rule, folders):
    broken = [
        f"{label(path)}:{line} {what}"
        for path in sources(*folders)
        for line, what in rule(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("rule", "code", "what"),
    [
        (unsafe_reads, "import pickle", "pickle"),
        (unsafe_reads, "from joblib import load", "joblib"),
        (unsafe_reads, "x = eval('1')", "eval"),
        (unsafe_reads, "np.load(p, allow_pickle=True)", "allow_pickle"),
        (unsafe_reads, "table = pandas.read_pickle(p)", "read_pickle"),
        (unsafe_reads, "weights = torch.load(p)", "torch.load"),
        (unsafe_reads, "np.load(p, allow_pickle=flag)", "allow_pickle"),
        (silent_defaults, "config.get('lanes', 4)", "config.get('lanes', 4)"),
        (silent_defaults, "run.config.get('lanes')", "run.config.get('lanes')"),
        (lambda t: named_extensions(t, {"mri"}), "if name == 'mri': pass", "mri"),
        (lambda t: named_extensions(t, {"mri"}), "x = batch.streams['mri.slice']", "mri"),
        (
            lambda t: named_extensions(t, {"mri"}),
            "from multimed_jax.modalities import text",
            "text",
        ),
    ],
)
def test_the_rules_notice(rule, code, what):
    assert [found for _, found in rule(ast.parse(code))] == [what]


def test_the_rules_let_pass():
    lines = [
        '"""The mri modality."""',
        "np.load(p, allow_pickle=False)",
        'record.get("an mri slice")',
    ]
    tree = ast.parse("\n".join(lines))
    rules = [unsafe_reads(tree), silent_defaults(tree), named_extensions(tree, {"mri"})]
    assert not [found for rule in rules for found in rule]


def test_no_file_holds_a_path_of_a_machine():
    folders = ("multimed_jax", "tfds_builders", "configs", "tests", "docs", "launch", "benchmarks")
    suffixes = {".py", ".md", ".toml", ".sh", ".yaml", ".json", ".csv", ".txt", ".cff", ".lock"}
    files = [p for folder in folders for p in (REPOSITORY / folder).rglob("*")]
    files += list(REPOSITORY.glob("*.*"))
    found = []
    for path in files:
        if path.suffix in suffixes and path != Path(__file__).resolve() and path.is_file():
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if re.search(
                    r"(^|[\s\"'=(`@])(file://)?/(work|home|root|Users)/(?!someone)\w", line
                ):
                    found.append(f"{label(path)}:{number}")
    assert not found, found
