"""What all commands share: flags of a run, strict reading of a config file, one-sentence errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags
from ml_collections import ConfigDict, FieldReference, config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from multimed_jax.config import RunConfig
from multimed_jax.config_io import from_dict
from multimed_jax.types import UserError

# Exit codes: 0 finished, 75 preempted and saved (launchers requeue on it), others are errors.
EXIT_ERROR = 1
EXIT_PREEMPTED = 75


def define_config_flag() -> Any:
    """The flag `--config FILE[:ARG]`, with overrides such as `--config.model.d_model=128`."""
    return config_flags.DEFINE_config_file(
        "config", None, "Path of a file whose get_config() returns the run's ConfigDict."
    )


def run_command(main: Callable[[], int], required: tuple[str, ...] = ()) -> None:
    """Parses the flags, runs `main` and exits with its code; a UserError becomes one sentence."""

    def parse(argv: list[str]) -> list[str]:
        try:
            return _parse(argv, required)
        except UserError as error:
            return _fail(error)
        except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
            # What absl and ml_collections raise for a flag, a config file or an override.
            return _fail(" ".join(str(error.args[0] if error.args else error).split()))

    def body(_: list[str]) -> int:
        try:
            return main()
        except UserError as error:
            return _fail(error)

    app.run(body, flags_parser=parse)


def _parse(argv: list[str], required: tuple[str, ...]) -> list[str]:
    if "config" in required:
        _check_overrides(argv)
    rest = flags.FLAGS(argv)
    for name in required:
        if not flags.FLAGS[name].value:
            raise UserError(f"--{name} is missing")
    if rest[1:]:
        raise UserError(f"unexpected argument {rest[1]!r}; every option is a --flag")
    return rest


def _check_overrides(argv: list[str]) -> None:
    """Raises UserError for a config file that fails, or an override of a key that it lacks."""
    arguments = [a.lstrip("-") if a.startswith("-") else a for a in argv[1:]]
    path = None
    for index, argument in enumerate(arguments):
        if argument.startswith("config="):
            path = argument.partition("=")[2]
        elif argument == "config":
            path = arguments[index + 1] if index + 1 < len(arguments) else None
    if path is None:
        return
    root = _load(path)
    for override in (a.partition("=")[0] for a in arguments if a.startswith("config.")):
        node: Any = root
        keys = override.split(".")
        for depth, key in enumerate(keys[1:], 1):
            key = key.partition("[")[0]
            if isinstance(node, ConfigDict) and key not in node:
                raise UserError(
                    f"--{override}: {'.'.join(keys[:depth])} has no key {key!r}; accepted keys: "
                    f"{', '.join(sorted(node))}"
                )
            node = node[key] if isinstance(node, ConfigDict) else None


def _load(path: str) -> ConfigDict:
    if not os.path.isfile(path.partition(":")[0]):
        raise UserError(
            f"--config {path} is not a file; give the path of a Python file whose get_config() "
            "returns a ConfigDict"
        )
    try:
        config = ConfigFileFlagParser("config").parse(path)
    except Exception as error:  # the file is the user's program: anything can come out of it
        raise UserError(f"--config {path} fails: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config {path}: get_config() returns {config!r}, not a ConfigDict")
    return config


def _fail(error: object) -> NoReturn:
    print(f"error: {error}", file=sys.stderr, flush=True)
    sys.exit(EXIT_ERROR)


def resolve_config(config: ConfigDict | None) -> RunConfig:
    """The frozen config of a `--config` flag. Raises UserError for anything that does not fit."""
    if config is None:
        raise UserError("--config is missing: name a file such as configs/quickstart.py")
    return from_dict(RunConfig, _plain(config))


def _plain(value: Any) -> Any:
    if isinstance(value, FieldReference):
        return _plain(value.get())
    if isinstance(value, (ConfigDict, Mapping)):
        return {key: _plain(value[key]) for key in value}
    if isinstance(value, (list, tuple)):
        return tuple(_plain(v) for v in value)
    return value


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or the user's cache."""
    import jax  # after the flags, so that a wrong flag answers at once

    default = (
        Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "multimed_jax" / "xla"
    )
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(default))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
