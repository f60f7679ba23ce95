"""One refresh of an account at a time in this process (single-flight): the others take what the first brings back.

It saves locks, reads and waking a thousand threads by the database; it decides nothing. What a flight brings is
committed already, so a passenger may use it as if it had read it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from identity.errors import Unavailable


class Latch:
    """What many threads wait for, and pass one after the other: whoever has passed lets the next one through.

    An Event wakes all of them at once, and hundreds that want the interpreter at the same time take it from each other.
    """

    __slots__ = ("_is_open", "_shut")

    def __init__(self) -> None:
        self._is_open = False
        self._shut = threading.Lock()
        self._shut.acquire()

    def open(self) -> None:
        """Let them through, now and from now on. Once."""
        self._is_open = True
        self._shut.release()

    def wait(self, timeout: float) -> bool:
        """Whether it was opened within *timeout*, in seconds."""
        if self._shut.acquire(timeout=max(0.0, timeout)):
            self._shut.release()
        return self._is_open  # also where another was just passing for as long


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a caller of `Coordinator.refresh` asks for."""

    account: str
    after_generation: int
    refused: bool  # the present token was refused upstream: it is not offered again
    keep: float  # the share of the pace that is left to others

    def covers(self, other: Wish) -> bool:
        """Whether "not now" to this one is "not now" to *other*, too."""
        return self.keep <= other.keep and (other.refused or not self.refused)


@dataclass(kw_only=True)
class Flight:
    """A refresh under way, and its end."""

    wish: Wish
    generation: int | None = None
    unavailable: Unavailable | None = None
    landed: Latch = field(default_factory=Latch)

    def serves(self, wish: Wish) -> int | None:
        """The generation it brings for *wish*; None: look for yourself. Raises Unavailable."""
        if self.generation is not None:
            # The same generation as before is the present token, served while the provider is away.
            served = self.generation == self.wish.after_generation == wish.after_generation and self.wish.covers(wish)
            return self.generation if served or self.generation > wish.after_generation else None
        if self.unavailable is not None and self.wish.covers(wish):
            raise Unavailable(str(self.unavailable), retry_after=self.unavailable.retry_after) from self.unavailable
        return None


class Flights:
    """The refreshes under way in this process, by account."""

    def __init__(self) -> None:
        self._under_way: dict[str, Flight] = {}
        self._lock = threading.Lock()

    def join(self, wish: Wish) -> tuple[Flight, bool]:
        """The account's flight, and whether the caller is the one to fly it: then it calls `land`, whatever happens."""
        with self._lock:
            flight = self._under_way.get(wish.account)
            if flight is not None:
                return flight, False
            flight = self._under_way[wish.account] = Flight(wish=wish)
            return flight, True

    def land(self, flight: Flight) -> None:
        """The flight has ended; whoever comes now begins another."""
        with self._lock:
            del self._under_way[flight.wish.account]
        flight.landed.open()
