"""Single flight: one refresh per account at a time in this process, whose result every waiting thread shares.

It saves locks, reads and a thousand threads polling the database; it decides nothing. A flight's result is committed,
and a waiting thread may use it as if it had read it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from identity.errors import Unavailable


class Latch:
    """An event that wakes its waiters one after another: each thread that passes lets the next one through.

    `threading.Event` wakes all of them at once, and hundreds of threads then contend for the interpreter lock.
    """

    __slots__ = ("_is_open", "_shut")

    def __init__(self) -> None:
        self._is_open = False
        self._shut = threading.Lock()
        self._shut.acquire()

    def open(self) -> None:
        """Let threads through from now on. To be called once."""
        self._is_open = True
        self._shut.release()

    def wait(self, timeout: float) -> bool:
        """Return True if the latch was opened within *timeout* seconds."""
        if self._shut.acquire(timeout=max(0.0, timeout)):
            self._shut.release()
        return self._is_open  # the lock may have been busy only because another thread was passing


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The arguments of one `Coordinator.refresh` call."""

    account: str
    after_generation: int
    refused: bool  # the current token was refused upstream and is not offered again
    keep: float  # the share of the burst left to other callers

    def covers(self, other: Wish) -> bool:
        """True if "not now" for this wish also means "not now" for *other*."""
        return self.keep <= other.keep and (other.refused or not self.refused)


@dataclass(kw_only=True)
class Flight:
    """A refresh in progress, and its result."""

    wish: Wish
    generation: int | None = None
    unavailable: Unavailable | None = None
    landed: Latch = field(default_factory=Latch)

    def serves(self, wish: Wish) -> int | None:
        """Return the generation that satisfies *wish*; None if its caller must read itself. Raises Unavailable."""
        if self.generation is not None:
            # An unchanged generation is the current token, served while the provider is unavailable.
            served = self.generation == self.wish.after_generation == wish.after_generation and self.wish.covers(wish)
            return self.generation if served or self.generation > wish.after_generation else None
        if self.unavailable is not None and self.wish.covers(wish):
            raise Unavailable(str(self.unavailable), retry_after=self.unavailable.retry_after) from self.unavailable
        return None


class Flights:
    """The refreshes in progress in this process, by account."""

    def __init__(self) -> None:
        self._under_way: dict[str, Flight] = {}
        self._lock = threading.Lock()

    def join(self, wish: Wish) -> tuple[Flight, bool]:
        """Return the account's flight and whether the caller must run it: then it calls `land`, whatever happens."""
        with self._lock:
            flight = self._under_way.get(wish.account)
            if flight is not None:
                return flight, False
            flight = self._under_way[wish.account] = Flight(wish=wish)
            return flight, True

    def land(self, flight: Flight) -> None:
        """End the flight: the next caller begins another."""
        with self._lock:
            del self._under_way[flight.wish.account]
        flight.landed.open()
