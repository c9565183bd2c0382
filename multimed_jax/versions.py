"""What runs: versions of the packages, commit and content of the package's own code."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")

_FOLDER = Path(__file__).parent


def package_versions() -> dict[str, str]:
    """Name -> version of the packages that decide a run's figures."""
    return {name: metadata.version(name) for name in PACKAGES}


def git_commit() -> str | None:
    """The commit of the checkout that the package runs from; None for an installed wheel."""
    found = subprocess.run(
        ["git", "-C", str(_FOLDER), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or None


def code_facts() -> dict[str, str]:
    """All of this that the processes of a job must have in common, by what it is called."""
    digest = hashlib.sha256()
    for path in sorted(_FOLDER.rglob("*.py")):
        digest.update(path.relative_to(_FOLDER).as_posix().encode() + b"\0" + path.read_bytes())
    facts = {"Python": platform.python_version(), "git commit": git_commit() or "none"}
    facts["code of multimed_jax"] = digest.hexdigest()[:12]
    return facts | package_versions()
