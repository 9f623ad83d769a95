"""light_dataclass: for what every call makes some of. Frozen to whoever checks types, and a plain class at run time."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def light_dataclass(cls: type[T]) -> type[T]:
    """`dataclass(frozen=True, slots=True)` without the guard, which makes __init__ four times as slow: 1 us a field where a
    whole call is to take 500 (2026-11). mypy refuses whoever assigns to a field."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
