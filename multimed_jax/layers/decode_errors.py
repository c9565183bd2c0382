"""The error of a record that cannot be decoded."""

from __future__ import annotations

from multimed_jax.types import UserError


class DecodeError(UserError):
    """One record cannot be decoded; its sentence names the fault and never a sample or a person.

    Builders quarantine such a record; the loader leaves its slots as padding and counts it.
    """
