"""Faults ordered by tests. Each applies to a bounded number of matching requests, oldest first."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

DRIP_PIECES = 20


class Mode(StrEnum):
    DELAY = "delay"  # answer `seconds` late with an immediate effect; `when: before` delays the effect as well
    STATUS = "status"  # answer `status` without processing; `when: after` processes first
    BODY = "body"  # as status, with 200 by default
    DROP_REQUEST = "drop_request"  # close the connection before any effect
    DROP_RESPONSE = "drop_response"  # process and log it, then close the connection without an answer
    DRIP_HEADERS = "drip_headers"  # spread the header bytes over `seconds`
    DRIP_BODY = "drip_body"  # spread the body bytes over `seconds`
    CUT_BODY = "cut_body"  # process it, send half of the body, close the connection
    FIELDS = "fields"  # process it, then `set` and `drop` fields of the JSON answer


_SLOW = {Mode.DELAY, Mode.DRIP_HEADERS, Mode.DRIP_BODY}
_BEFORE = {Mode.STATUS, Mode.BODY, Mode.DROP_REQUEST}


class BadFault(ValueError):
    """A fault order that is not understood."""


@dataclass(kw_only=True)
class Fault:
    mode: Mode
    endpoint: str | None = None  # a route's or operation's name, or part of the path; None is every request
    provider: str | None = None  # on the authorization server: only this provider's endpoints
    times: int = 1
    seconds: float = 0.0  # before the answer, or spread over it
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    before: bool = False
    fields: dict[str, Any] = field(default_factory=dict)
    drop: tuple[str, ...] = ()

    @classmethod
    def parse(cls, order: dict[str, Any]) -> Self:
        known = {"mode", "endpoint", "provider", "times", "seconds", "status", "body", "headers", "when", "set", "drop"}
        if unknown := set(order) - known:
            raise BadFault(f"unknown keys: {', '.join(sorted(unknown))}")
        try:
            mode = Mode(order.get("mode", ""))
        except ValueError as error:
            raise BadFault(f"mode must be one of {', '.join(Mode)}") from error
        times, seconds = order.get("times", 1), order.get("seconds", 1.0 if mode in _SLOW else 0.0)
        if not isinstance(times, int) or not 1 <= times <= 10_000:
            raise BadFault("times must be between 1 and 10000")
        if not isinstance(seconds, int | float) or not 0 <= seconds <= 120:
            raise BadFault("seconds must be between 0 and 120")
        return cls(
            mode=mode,
            endpoint=order.get("endpoint"),
            provider=order.get("provider"),
            times=times,
            seconds=float(seconds),
            status=order.get("status", 503 if mode is Mode.STATUS else 200),
            body=order.get("body"),
            headers={str(name): str(value) for name, value in order.get("headers", {}).items()},
            before=order.get("when", "before" if mode in _BEFORE else "after") == "before",
            fields=dict(order.get("set", {})),
            drop=tuple(order.get("drop", ())),
        )

    @property
    def waits_to_answer(self) -> bool:
        """True if the whole answer comes `seconds` late."""
        spread = self.mode in (Mode.DRIP_HEADERS, Mode.DRIP_BODY)
        return not spread and not (self.mode is Mode.DELAY and self.before)

    def matches(self, *, names: set[str], path: str) -> bool:
        if self.provider and self.provider not in names:
            return False
        return self.endpoint is None or self.endpoint in names or self.endpoint in path


class Faults:
    """Faults that are not used up."""

    def __init__(self, orders: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._orders = list(orders)

    def order(self, fault: Fault) -> None:
        with self._lock:
            self._orders.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._orders.clear()

    def take(self, *, names: set[str], path: str) -> Fault | None:
        """Return the fault for this request, if any, and count it as used."""
        with self._lock:
            for fault in self._orders:
                if fault.matches(names=names, path=path):
                    fault.times -= 1
                    if fault.times == 0:
                        self._orders.remove(fault)
                    return fault
            return None
