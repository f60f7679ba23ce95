"""The results of beginning or settling a refresh."""

from __future__ import annotations

from dataclasses import dataclass

from identity.model import RuledOut


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The refresh ended as intended."""


@dataclass(frozen=True, kw_only=True)
class Superseded:
    """Another caller was first: a process began or settled it, or a new consent or secret came."""


Ending = Settled | Superseded | RuledOut
