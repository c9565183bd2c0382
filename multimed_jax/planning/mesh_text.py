"""A mesh as a flag gives it."""

from __future__ import annotations

from multimed_jax.config import MeshConfig
from multimed_jax.types import UserError


def parse_mesh(text: str) -> MeshConfig:
    """`data=2,fsdp=4` as a config; an axis that is not named is 1. Raises UserError."""
    sizes = {"data": 1, "fsdp": 1, "tensor": 1}
    for item in text.split(","):
        axis, _, size = item.strip().partition("=")
        if axis not in sizes or not size.lstrip("-").isdigit():
            raise UserError(
                f"--mesh {text} has {item.strip()!r}; accepted: data=A,fsdp=B,tensor=C with whole "
                "numbers, one of which may be -1"
            )
        sizes[axis] = int(size)
    return MeshConfig(**sizes)
