"""Collected failures of a loop over many things: kept until every item had its turn, then raised together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from identity.errors import Unavailable
from identity.sql.store import CommitUnknown


@dataclass
class Failures:
    """The failures of one turn, by the id of the item that failed."""

    of: dict[str, Exception] = field(default_factory=dict)

    def add(self, kind: str, id: str, failure: Exception) -> None:
        """Keep *failure*, with a note of the *kind* and id of the item that failed."""
        failure.add_note(f"{kind} {id}")
        self.of[id] = failure

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        """On exit, raise the failures added inside the block, together with the exception that ended it, if any."""
        try:
            yield
        except Exception as why:
            if self.of:
                raise ExceptionGroup(what, [*self.of.values(), why]) from None
            raise
        self.tell(what)

    def tell(self, what: str) -> None:
        """Raise what was collected, if anything: an ExceptionGroup, or Unavailable where all are worth a retry."""
        if not self.of:
            return
        together = ExceptionGroup(what, list(self.of.values()))
        if all(isinstance(failure, Unavailable | CommitUnknown) for failure in self.of.values()):
            raise Unavailable(f"{what}: {together.exceptions[0]}") from together
        raise together
