"""The line at a token endpoint: a caller that finds it full gets a place and the time of its own turn.

Without it, all waiting callers would be told the same next turn, which only one of them gets: a thousand jobs would
each ask some hundred times. `gate.lua` keeps the line of all workers; `Line` is the same in Python, for when Redis is
unreachable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from typing import NamedTuple

_MICROSECOND = timedelta(microseconds=1)

#: A place this overdue no longer blocks the line; its job may be gone. If it does return, it goes first.
LATE = timedelta(seconds=30) // _MICROSECOND
#: The longest wait that is told: a caller farther back looks again part-way. A place this overdue is forgotten.
LONGEST = timedelta(hours=1) // _MICROSECOND
#: If turns went unused for `LATE` and this many turns more, nobody in line is waited for.
UNUSED_TURNS = 5


class Rank(IntEnum):
    """Priority in line: a lower rank goes first."""

    NOW = -2  # its turn has come, or it must ask once more; takes no place
    LATE = -1  # missed its turn
    CONNECT = 0  # a person, whose code is good for minutes
    REFRESH = 1


class Waiter(NamedTuple):
    """A caller at a gate. Without a *name* it takes no place and goes behind all of its rank."""

    name: str = ""
    rank: Rank = Rank.REFRESH


@dataclass(kw_only=True)
class _Place:
    rank: Rank
    number: int
    back: int  # when it was told to come back


@dataclass(kw_only=True)
class Line:
    """The callers waiting at one endpoint in this process. Times are microseconds."""

    places: dict[str, _Place] = field(default_factory=dict)
    given: int = 0
    absent: int = 0  # places up to this number are not counted: their turns went unused and nobody came

    def wait(self, who: Waiter, now: int, *, free: int, interval: int, unused: bool) -> int:
        """Return how long *who* must wait if the first in line may go at *free* and one more after each *interval*.

        *unused*: turns have gone unused for a while (`UNUSED_TURNS`).
        """
        self.places = {name: place for name, place in self.places.items() if place.back >= now - LONGEST}
        place, rank = self.places.get(who.name), who.rank
        if unused:
            self.absent = self.given
        elif place is not None and (place.back < now - LATE or place.number <= self.absent):
            self.absent = 0  # one of them came, so the rest may come as well
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

    @property
    def back(self) -> int:
        """When the last of them was told to come back."""
        return max((one.back for one in self.places.values()), default=0)

    def length(self, now: int) -> int:
        """Return how many callers wait."""
        return sum(one.back >= now - LATE for one in self.places.values())

    def leave(self, who: Waiter) -> None:
        """Remove *who*: its turn has come, or it will not come back."""
        self.places.pop(who.name, None)


def _told(wait: int) -> int:
    return wait if wait <= LONGEST else LONGEST // 2 + wait % (LONGEST // 2)
