"""State machines: allowed transitions as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

State = TypeVar("State", bound=StrEnum)


class IllegalMove(Exception):
    """Code requested a transition that the table does not allow: a bug, never an input error."""


@dataclass(frozen=True)
class Moves(Generic[State]):
    """A table of allowed transitions. `sources(to)` is the condition that every UPDATE carries."""

    name: str
    allowed: Mapping[State, frozenset[State]]

    def sources(self, to: State) -> list[State]:
        """Return the states from which *to* may be reached, for a WHERE clause."""
        return [state for state, targets in self.allowed.items() if to in targets]

    def check(self, source: State, to: State) -> State:
        """Return *to*. Raises IllegalMove."""
        if to not in self.allowed[source]:
            raise IllegalMove(f"a {self.name} does not move from {source} to {to}")
        return to

    @property
    def terminal(self) -> frozenset[State]:
        return frozenset(state for state, targets in self.allowed.items() if not targets)
