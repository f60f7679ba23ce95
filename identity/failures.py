"""What a turn over many things meets that was not foreseen: kept until the rest had their turn, then raised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from identity.errors import Unavailable
from identity.sql.store import CommitUnknown


@dataclass
class Failures:
    """What each of them met, by its id."""

    of: dict[str, Exception] = field(default_factory=dict)

    def add(self, kind: str, id: str, failure: Exception) -> None:
        """Keep *failure*, with a note of the *kind* of thing and the id that met it."""
        failure.add_note(f"{kind} {id}")
        self.of[id] = failure

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        """Have what is added within told at the end, or with it why the turn could not go on."""
        try:
            yield
        except Exception as why:
            if self.of:
                raise ExceptionGroup(what, [*self.of.values(), why]) from None
            raise
        self.tell(what)

    def tell(self, what: str) -> None:
        """Raise what was added, if anything was: an ExceptionGroup, or Unavailable where each only has to wait."""
        if not self.of:
            return
        together = ExceptionGroup(what, list(self.of.values()))
        if all(isinstance(failure, Unavailable | CommitUnknown) for failure in self.of.values()):
            raise Unavailable(f"{what}: {together.exceptions[0]}") from together
        raise together
