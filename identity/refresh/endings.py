"""What may come of settling a refresh."""

from __future__ import annotations

from dataclasses import dataclass

from identity.model import RuledOut


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The refresh ended as intended."""


@dataclass(frozen=True, kw_only=True)
class Superseded:
    """Someone was first: another process settled it, a consent brought a new generation, or an operator a secret."""


Ending = Settled | Superseded | RuledOut
