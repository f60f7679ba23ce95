"""The provider with one case at a time: `PUT /_sandbox/case` starts a case from its beginning.

`POST /_sandbox/clock` with `{"seconds": …}` advances the provider's clock only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from deploy.sandbox.journal import Clock, Journal
from deploy.sandbox.provider.app import Habits, create_provider
from deploy.sandbox.provider.cases import CASES, Case
from deploy.sandbox.provider.orders import Setting

ROUTE, CLOCK = ("PUT", "/_sandbox/case"), ("POST", "/_sandbox/clock")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the provider besides its case. None stands for the case's own value."""

    client_id: str = "client"
    client_secret: str | None = field(default=None, repr=False)  # None: any is accepted
    user: str = "anna"
    rotates: bool | None = None
    grace: float | None = None
    lifetime: int = 3600  # of access tokens, in seconds
    seconds: float = 15.0  # delay of slow answers
    hook: str | None = None  # the URL that receives signals
    signing_secret: str | None = field(default=None, repr=False)


class Stage:
    """A WSGI application that forwards to the current case."""

    def __init__(self, case: int, options: Options, *, journal: Journal, clock: Clock) -> None:
        self._options = options
        self._journal = journal
        self._clock = clock
        self._number = case
        self._passed = timedelta()
        self._app: WSGIApplication
        self.begin(case, options)

    def clock(self) -> datetime:
        """Return the provider's time."""
        return self._clock() + CASES[self._number].ahead + self._passed

    def begin(self, number: int, options: Options) -> Case:
        """Start a case from its beginning: no grants, no presentations, all its faults pending."""
        case = self._case(number)
        self._number, self._passed = number, timedelta()
        habits = Habits(
            client_id=options.client_id,
            client_secret=options.client_secret,
            user=options.user,
            rotates=case.rotates if options.rotates is None else options.rotates,
            grace=case.grace if options.grace is None else options.grace,
            lifetime=options.lifetime,
            hook=options.hook,
            signing_secret=options.signing_secret,
        )
        setting = Setting(now=self.clock(), seconds=options.seconds, lifetime=options.lifetime)
        self._app = create_provider(case, habits, setting, journal=self._journal, clock=self.clock)
        return case

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        asked = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if asked not in (ROUTE, CLOCK):
            return self._app(environ, start_response)
        said: dict[str, Any]
        try:
            order = json.load(environ["wsgi.input"])
            status, said = "200 OK", self._pass(order) if asked == CLOCK else self._begin_ordered(order)
        except (ValueError, TypeError, OverflowError) as error:
            status, said = "400 Bad Request", {"error": str(error)}
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(said).encode()]

    def _pass(self, order: Any) -> dict[str, Any]:
        """Advance the clock by `{"seconds"}`."""
        if not isinstance(order, dict) or set(order) != {"seconds"}:
            raise ValueError("the body must be a JSON object with seconds")
        self._passed += timedelta(seconds=float(order["seconds"]))
        return {"now": self.clock().isoformat()}

    def _begin_ordered(self, order: Any) -> dict[str, Any]:
        """Start `{"case", …}` with options of the same names, which default to those of the process."""
        known = {"case", "rotates", "grace", "lifetime", "seconds", "hook"}
        if not isinstance(order, dict) or "case" not in order or set(order) - known:
            raise ValueError(f"the body must be a JSON object with case, and of {', '.join(sorted(known))}")
        own = self._options
        options = Options(
            client_id=own.client_id,
            client_secret=own.client_secret,
            user=own.user,
            rotates=order.get("rotates", own.rotates),
            grace=order.get("grace", own.grace),
            lifetime=int(order.get("lifetime", own.lifetime)),
            seconds=float(order.get("seconds", own.seconds)),
            hook=order.get("hook", own.hook),
            signing_secret=own.signing_secret,
        )
        case = self.begin(order["case"], options)
        return {"case": case.number, "name": case.name, "says": case.says}

    @staticmethod
    def _case(number: Any) -> Case:
        if not isinstance(number, int) or number not in CASES:
            raise ValueError(f"there is no case {number!r}: they are numbered from 1 to {len(CASES)}")
        return CASES[number]
