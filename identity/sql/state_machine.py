"""Allowed moves of a state, as data, and the one mover that checks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

State = TypeVar("State", bound=StrEnum)


class IllegalMove(Exception):
    """Code asked for a move that the table does not allow: a bug, never an input error."""


@dataclass(frozen=True)
class Moves(Generic[State]):
    """One table of allowed moves. `sources(to)` is the condition every UPDATE carries."""

    name: str
    allowed: Mapping[State, frozenset[State]]

    def sources(self, to: State) -> list[State]:
        """The states from which *to* may be reached, for a WHERE clause."""
        return [state for state, targets in self.allowed.items() if to in targets]

    def check(self, source: State, to: State) -> State:
        """*to*, or IllegalMove."""
        if to not in self.allowed[source]:
            raise IllegalMove(f"a {self.name} does not move from {source} to {to}")
        return to

    @property
    def terminal(self) -> frozenset[State]:
        return frozenset(state for state, targets in self.allowed.items() if not targets)
