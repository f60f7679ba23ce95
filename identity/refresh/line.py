"""The line before a token endpoint: whoever finds it full is told when its own turn comes, and keeps its place.

Else all who wait would be told of the same next turn, which one of them gets: of a thousand jobs each would ask some
hundred times. `gate.lua` keeps the line of all workers; `Line` is the same in Python, for while no Redis is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from typing import NamedTuple

_MICROSECOND = timedelta(microseconds=1)

#: Who is so late holds up nobody: its job may have been cancelled, or served. When it comes after all, it goes first.
LATE = timedelta(seconds=30) // _MICROSECOND
#: So far ahead a place is told at most: who stands farther behind looks again half-way. So late is forgotten.
LONGEST = timedelta(hours=1) // _MICROSECOND
#: Where all in line could have gone for `LATE` and so many turns more, and nobody did, none of them is waited for.
UNUSED_TURNS = 5


class Rank(IntEnum):
    """A lower one goes before all of a higher."""

    NOW = -2  # whose turn it is, and who has to ask once more; for who takes no place
    LATE = -1  # whoever was not there when its turn came
    CONNECT = 0  # a person, whose code is good for minutes
    REFRESH = 1


class Who(NamedTuple):
    """Who asks. Without a *name* it takes no place, and stands behind all of its rank."""

    name: str = ""
    rank: Rank = Rank.REFRESH


@dataclass(kw_only=True)
class _Place:
    rank: Rank
    number: int
    back: int  # when it was told to come back


@dataclass(kw_only=True)
class Line:
    """Who waits at one endpoint in this process. Times are microseconds."""

    places: dict[str, _Place] = field(default_factory=dict)
    given: int = 0
    absent: int = 0  # places up to this number are not counted: their turns went unused, and none of them came

    def wait(self, who: Who, now: int, *, free: int, interval: int, unused: bool) -> int:
        """How long *who* has to wait where the first in line may go at *free*, and another after each *interval*.

        *unused*: all in line could have gone for a while, and nobody did.
        """
        self.places = {name: place for name, place in self.places.items() if place.back >= now - LONGEST}
        place, rank = self.places.get(who.name), who.rank
        if unused:
            self.absent = self.given
        elif place is not None and (place.back < now - LATE or place.number <= self.absent):
            self.absent = 0  # one of them has come, so the others may, too
        if place is not None and place.back < now - LATE:
            place, rank = None, Rank.LATE
        there = (one for one in self.places.values() if one.back >= now - LATE and one.number > self.absent)
        stands = (rank, self.given + 1) if place is None else (place.rank, place.number)
        before = sum((one.rank, one.number) < stands for one in there)
        wait = max(free + before * interval - now, 0)
        if wait == 0 or not who.name:
            return wait
        first = max(free - now, 0)
        wait = first + _told(wait - first)
        if place is None:
            self.given += 1
            place = self.places[who.name] = _Place(rank=rank, number=self.given, back=0)
        place.back = now + wait
        return wait

    def length(self, now: int) -> int:
        """How many wait."""
        return sum(one.back >= now - LATE for one in self.places.values())

    def leave(self, who: Who) -> None:
        """Its turn has come, or it will not come back."""
        self.places.pop(who.name, None)


def _told(wait: int) -> int:
    return wait if wait <= LONGEST else LONGEST // 2 + wait % (LONGEST // 2)
