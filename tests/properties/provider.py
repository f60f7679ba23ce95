"""A rotating provider as a pure model, and the wire to it that a schedule can cut."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs

from identity.http import Answer, HttpRequest, NoAnswer, NotSent, Outcome


class Fate(StrEnum):
    """What becomes of one request."""

    ANSWERED = "answered"
    REFUSED_CONNECTION = "refused connection"  # nothing left
    LOST_REQUEST = "lost request"  # it left, and did not arrive
    LOST_ANSWER = "lost answer"  # the provider rotated, and nobody hears of it
    BUSY = "busy"  # 503
    LIMITED = "limited"  # 429
    UNREADABLE = "unreadable"  # 200, rotated, and the body makes no sense


class Wire:
    """`identity.http.Client` for the coordinator, with one grant's provider behind it. *meanwhile* runs on the way."""

    def __init__(self, *, graceful: bool) -> None:
        self.presented: Counter[str] = Counter()
        self.turned_away: Counter[str] = Counter()
        self.live = {"refresh-0"}
        self.spent: dict[str, str] = {}  # a used refresh token and the one that came for it
        self.issued = {"access-0"}
        self.graceful = graceful
        self.destroyed = False
        self.fate: Callable[[], Fate] = lambda: Fate.ANSWERED
        self.meanwhile: Callable[[str], None] = lambda token: None
        self._count = 0

    def send(self, request: HttpRequest, **_: Any) -> Outcome:
        (token,) = parse_qs(request.body.decode())["refresh_token"]
        fate = self.fate()
        if fate is Fate.REFUSED_CONNECTION:
            return NotSent(reason="connection refused")
        self.presented[token] += 1
        self.meanwhile(token)
        if fate is Fate.LOST_REQUEST:
            return NoAnswer(reason="the connection broke")
        if fate in (Fate.BUSY, Fate.LIMITED):
            self.turned_away[token] += 1
            return self._answer({}, 503 if fate is Fate.BUSY else 429)
        answer = self._exchange(token)
        if fate is Fate.LOST_ANSWER:
            return NoAnswer(reason="the connection broke")
        return (
            Answer(status=200, headers={}, body=b"<html>", elapsed=timedelta()) if fate is Fate.UNREADABLE else answer
        )

    def consent(self) -> tuple[str, str]:
        """A person connects anew: an access and a refresh token of a new grant."""
        self.live, self.spent, self.destroyed = set(), {}, False
        return self._issue()

    def _issue(self) -> tuple[str, str]:
        self._count += 1
        access, refresh = f"access-{self._count}", f"refresh-{self._count}"
        self.issued.add(access)
        self.live.add(refresh)
        return access, refresh

    def _exchange(self, token: str) -> Answer:
        if self.graceful and token in self.spent and self.spent[token] in self.live:
            self.live.discard(self.spent[token])  # the replay takes the place of what was lost
        elif token not in self.live:
            self.destroyed = self.destroyed or token in self.spent  # reuse: the whole family dies
            self.live = set() if token in self.spent else self.live
            return self._answer({"error": "invalid_grant"}, 400)
        self.live.discard(token)
        access, refresh = self._issue()
        self.spent[token] = refresh
        return self._answer({"access_token": access, "refresh_token": refresh, "expires_in": 3600}, 200)

    @staticmethod
    def _answer(document: dict[str, Any], status: int) -> Answer:
        return Answer(status=status, headers={}, body=json.dumps(document).encode(), elapsed=timedelta())
