"""A rotating provider as a pure model, and the wire to it that a schedule can cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs

from identity.http.client import Answer, HttpRequest, NoAnswer, NotSent, Outcome


class Fate(StrEnum):
    """What becomes of one request."""

    ANSWERED = "answered"
    REFUSED_CONNECTION = "refused connection"  # nothing left
    LOST_REQUEST = "lost request"  # it left, and did not arrive
    LOST_ANSWER = "lost answer"  # the provider rotated, and nobody hears of it
    BUSY = "busy"  # 503
    LIMITED = "limited"  # 429
    UNREADABLE = "unreadable"  # 200, rotated, and the body makes no sense


@dataclass
class Shown:
    """One presentation of a refresh token that reached the provider's side."""

    at: datetime
    fate: Fate
    heard: bool = False  # its answer is committed, so that everybody knows of it

    @property
    def turned_away(self) -> bool:
        """Certainly without effect: the provider said that it did not look at it."""
        return self.heard and self.fate in (Fate.BUSY, Fate.LIMITED)


class Wire:
    """`identity.http.client.Client` with one grant's provider behind it. *meanwhile* runs on the way.

    With *grace*, for so long after its first use a token is taken again, unless what came for it was used.
    """

    def __init__(self, *, grace: timedelta, clock: Callable[[], datetime]) -> None:
        self.shown: dict[str, list[Shown]] = {}
        self.live = {"refresh-0"}
        self.spent: dict[str, tuple[str, datetime]] = {}  # a used refresh token, the one that came for it, and when
        self.issued = {"access-0": 0}  # by access token: the number of the request, or consent, that it came for
        self.asked = 0  # how many requests have left, and consents were given
        self.grace = grace
        self.clock = clock
        self.destroyed = False
        self.fate: Callable[[], Fate] = lambda: Fate.ANSWERED
        self.arriving: Callable[[str, Shown], None] = lambda token, shown: None
        self.meanwhile: Callable[[], None] = lambda: None
        self._count = 0

    def send(self, request: HttpRequest, *, send_before: float, **_: Any) -> Outcome:
        (token,) = parse_qs(request.body.decode())["refresh_token"]
        if self.clock().timestamp() >= send_before:
            return NotSent(reason="too late")
        shown = Shown(at=self.clock(), fate=self.fate())
        if shown.fate is Fate.REFUSED_CONNECTION:
            return NotSent(reason="connection refused")
        self.arriving(token, shown)
        self.asked += 1
        number = self.asked
        self.shown.setdefault(token, []).append(shown)
        if self.grace:  # a request that its own repetition overtakes is between the network and the provider
            answer = self._answered(token, shown, number)
            self.meanwhile()
            return answer
        self.meanwhile()
        return self._answered(token, shown, number)

    def _answered(self, token: str, shown: Shown, number: int) -> Outcome:
        match shown.fate:
            case Fate.LOST_REQUEST:
                return NoAnswer(reason="the connection broke")
            case Fate.BUSY | Fate.LIMITED:
                return self._answer({}, 503 if shown.fate is Fate.BUSY else 429)
        answer = self._exchange(token, number)
        match shown.fate:
            case Fate.LOST_ANSWER:
                return NoAnswer(reason="the connection broke")
            case Fate.UNREADABLE:
                return Answer(status=200, headers={}, body=b"<html>", elapsed=timedelta())
        return answer

    def consent(self) -> tuple[str, str]:
        """A person connects anew: an access and a refresh token of a new grant."""
        self.live, self.spent = set(), {}
        self.asked += 1
        return self._issue(self.asked)

    def _issue(self, number: int) -> tuple[str, str]:
        self._count += 1
        access, refresh = f"access-{self._count}", f"refresh-{self._count}"
        self.issued[access] = number
        self.live.add(refresh)
        return access, refresh

    def _exchange(self, token: str, number: int) -> Answer:
        successor, used = self.spent.get(token, ("", self.clock()))
        if successor in self.live and self.clock() < used + self.grace:
            self.live.discard(successor)  # the replay takes the place of what was lost
        elif token not in self.live:
            self.destroyed = self.destroyed or token in self.spent  # reuse: the whole family dies
            self.live = set() if token in self.spent else self.live
            return self._answer({"error": "invalid_grant"}, 400)
        self.live.discard(token)
        access, refresh = self._issue(number)
        self.spent[token] = (refresh, used)
        return self._answer({"access_token": access, "refresh_token": refresh, "expires_in": 3600}, 200)

    @staticmethod
    def _answer(document: dict[str, Any], status: int) -> Answer:
        return Answer(status=status, headers={}, body=json.dumps(document).encode(), elapsed=timedelta())
