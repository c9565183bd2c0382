"""Every spec of a package's folder, with each of its switches turned: for tests that cover all."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import types
import typing
from typing import Any


def specs_of(package: types.ModuleType) -> dict[str, Any]:
    """The SPEC of every module of a package, by the module's name."""
    return {
        module.name: importlib.import_module(f"{package.__name__}.{module.name}").SPEC
        for module in pkgutil.iter_modules(package.__path__)
        if not module.ispkg
    }


def variants(spec: Any) -> dict[str, Any]:
    """The spec as it is, and with every other value of each option that is a word or a flag."""
    made = {spec.name: spec}
    if spec.options is None:
        return made
    for name, hint in typing.get_type_hints(type(spec.options)).items():
        if typing.get_origin(hint) is typing.Literal:
            values = typing.get_args(hint)
        else:
            values = (False, True) if hint is bool else ()
        for value in values:
            if value != getattr(spec.options, name):
                made[f"{spec.name}-{name}={value}"] = spec.with_options(**{name: value})
    return made


def all_variants(package: types.ModuleType) -> dict[str, Any]:
    """`variants` of every spec of a package."""
    return {
        name: variant
        for spec in specs_of(package).values()
        for name, variant in variants(spec).items()
    }


def smaller(spec: Any, **sizes: int) -> Any:
    """The spec with those of the sizes that its options have, so that it compiles fast."""
    fields = () if spec.options is None else dataclasses.fields(spec.options)
    known = {field.name for field in fields}
    return spec.with_options(**{name: size for name, size in sizes.items() if name in known})
