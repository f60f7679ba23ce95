"""The failures of what is done for many, one after the other: told together, once all had their turn."""

from __future__ import annotations

from collections.abc import Sequence

from identity.errors import Unavailable
from identity.store import CommitUnknown


def raise_together(message: str, failures: Sequence[Exception]) -> None:
    """Raise what *failures* come to, if there are any: ExceptionGroup, or Unavailable where each only has to wait."""
    if not failures:
        return
    together = ExceptionGroup(message, failures)
    if all(isinstance(failure, Unavailable | CommitUnknown) for failure in failures):
        raise Unavailable(f"{message}: {failures[0]}") from together
    raise together
