"""Configs in and out: strict conversion from nested mappings, and stored configs as JSON.

Unknown and missing keys and values of another type raise `UserError`: there are no silent
defaults. A stored config is data: nothing of it is executed, and only modules under
`SPEC_PREFIXES` and the run's own `plugins` are imported for the specs that it names.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from multimed_jax.config import EvaluatorSpec, RunConfig
from multimed_jax.specs import ModalitySpec, TaskSpec
from multimed_jax.types import UserError

T = TypeVar("T")

# Modules from which a stored run may name a `module:SPEC`; configs add prefixes by `plugins`.
SPEC_PREFIXES = ("multimed_jax.modalities.", "multimed_jax.tasks.", "multimed_jax.evaluators.")


_SPEC_TYPES = (ModalitySpec, TaskSpec, EvaluatorSpec)


# ---------------------------------------------------------------------- strict conversion


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Converts a (nested) mapping into the frozen dataclass `cls`.

    Raises:
        UserError: for an unknown key, a missing key or a value of another type; the sentence
            names the key, the value and what is accepted.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where} must be a mapping of keys, not {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise UserError(f"{where} has no key {key!r}{hint}; accepted keys: {', '.join(fields)}")
    out = {}
    for name, field in fields.items():
        if name in values:
            out[name] = _convert(hints[name], values[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{where} lacks the key {name!r}")
    return cls(**out)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and hint not in _SPEC_TYPES:
        if isinstance(value, hint):  # type: ignore[arg-type]
            return value
        return from_dict(hint, value, where)  # type: ignore[type-var]
    if origin is Literal:
        if value not in typing.get_args(hint):
            accepted = ", ".join(map(repr, typing.get_args(hint)))
            raise UserError(f"{where} is {value!r}; accepted: {accepted}")
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise UserError(f"{where} must be a list or tuple, not {value!r}")
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin in (Mapping, dict) or isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise UserError(f"{where} must be a mapping, not {value!r}")
        item = typing.get_args(hint)[1]
        return {str(k): _convert(item, v, f"{where}.{k}") for k, v in value.items()}
    if origin is types.UnionType:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) and hint is not bool or not isinstance(value, hint):
        raise UserError(f"{where} must be of type {hint.__name__}, not {value!r}")
    return value


def to_dict(config: Any) -> Any:
    """The config with every key that it could have, as nested dicts; specs stay objects.

    A config file returns it as a ConfigDict, so that each key can be overridden on the command
    line, the defaults included.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, _SPEC_TYPES):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(k): to_dict(v) for k, v in config.items()}
    if isinstance(config, tuple):
        return tuple(to_dict(v) for v in config)
    return config


# ------------------------------------------------------------------- stored configs (JSON)


def to_json(config: Any) -> Any:
    """The config as plain JSON values; specs become {"spec": "module:SPEC", "options": {...}}."""
    if isinstance(config, _SPEC_TYPES):
        out: dict[str, Any] = {"spec": config.spec}
        options = getattr(config, "options", None)
        if options is not None:
            out["options"] = dataclasses.asdict(options)
        return out
    if isinstance(config, Mapping):
        return {key: to_json(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_json(value) for value in config]
    if dataclasses.is_dataclass(config):
        return to_json(to_dict(config))
    return config


def load_spec(stored: Mapping[str, Any], plugins: tuple[str, ...] = ()) -> Any:
    """Imports the spec that a stored run names, with its stored options.

    Only modules under `SPEC_PREFIXES` and the run's own `plugins` can be imported; nothing of a
    stored config is executed.

    Raises:
        UserError: where the name lies elsewhere or does not exist.
    """
    prefixes = SPEC_PREFIXES + tuple(plugins)
    module, _, attribute = stored["spec"].partition(":")
    if not any(f"{module}.".startswith(p if p.endswith(".") else f"{p}.") for p in prefixes):
        raise UserError(
            f"a stored run names {stored['spec']!r}, which lies outside the accepted modules: "
            f"{', '.join(prefixes)}"
        )
    try:
        spec = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"a stored run names {stored['spec']!r}, which is not there: {error}"
        ) from None
    options = stored.get("options")
    if options is None:
        return spec
    typed = from_dict(type(spec.options), options, stored["spec"])
    return spec.with_options(
        **{field.name: getattr(typed, field.name) for field in dataclasses.fields(typed)}
    )


def from_json(stored: Mapping[str, Any]) -> RunConfig:
    """The `RunConfig` that `to_json` wrote. Raises UserError where it no longer fits."""
    values = dict(stored)
    plugins = tuple(values["plugins"])
    for key in ("modalities", "tasks", "evals"):
        values[key] = tuple(load_spec(v, plugins) for v in values[key])
    return from_dict(RunConfig, values)


def config_hash(config: RunConfig) -> str:
    """12 hex digits of the resolved config without `data_dir`: the same run, anywhere."""
    values = to_json(config)
    values.pop("data_dir")
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
