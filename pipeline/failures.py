"""What a turn over many things meets that was not foreseen: kept until the rest had their turn, then raised."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Failures:
    """What each of them met, by its id."""

    of: dict[str, Exception] = field(default_factory=dict)

    def add(self, kind: str, id: str, failure: Exception) -> None:
        """Keep *failure*, with a note of the *kind* of thing and the id that met it."""
        failure.add_note(f"{kind} {id}")
        self.of[id] = failure

    def tell(self, what: str) -> None:
        """Raises ExceptionGroup *what* of all that were added, if any was."""
        if self.of:
            raise ExceptionGroup(what, list(self.of.values()))
