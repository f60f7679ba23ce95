"""Fixed-window rate limits per caller. Each upstream has its own headers and refusals."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from flask import Blueprint, Flask, Response, g, jsonify

from deploy.sandbox.journal import Clock
from deploy.sandbox.surface import BadControl, json_body


@dataclass(frozen=True, kw_only=True)
class Count:
    """Use of a caller's current window."""

    limit: int
    used: int
    resets: int  # epoch seconds
    exceeded: bool  # the request asked for more than was left, and was not counted

    @property
    def remaining(self) -> int:
        return self.limit - self.used


@dataclass(kw_only=True)
class _Window:
    used: int
    resets: int


class Windows:
    """A window per caller, starting with its first request."""

    def __init__(self, *, clock: Clock, limit: int, seconds: int) -> None:
        self._clock = clock
        self._limit, self._seconds, self._before = limit, seconds, 0
        self._windows: dict[str, _Window] = {}
        self._lock = threading.Lock()

    def order(self, *, limit: int, seconds: int, used: int = 0) -> None:
        """Set another limit, of which other callers have already *used* some. Existing counts are dropped."""
        with self._lock:
            self._limit, self._seconds, self._before = limit, seconds, used
            self._windows.clear()

    def count(self, whose: str, cost: int = 1) -> Count:
        """Count one more request."""
        now = int(self._clock().timestamp())
        with self._lock:
            window = self._windows.get(whose)
            if window is None or window.resets <= now:
                window = self._windows[whose] = _Window(used=self._before, resets=now + self._seconds)
            exceeded = window.used + cost > self._limit
            window.used += 0 if exceeded else cost
            return Count(limit=self._limit, used=window.used, resets=window.resets, exceeded=exceeded)


def say(headers: Mapping[str, str]) -> None:
    """Add headers to the current answer."""
    g.limits = {**g.get("limits", {}), **headers}


def limit(app: Flask, **windows: Windows) -> None:
    """Add the rate-limit headers to the answers of *app*, and the control endpoint that changes limits."""
    routes = Blueprint("limits", __name__)

    @routes.post("/_sandbox/limits")
    def order() -> tuple[Response, int]:
        body = json_body("limit", "seconds")
        named = body.get("of", "requests")
        if named not in windows:
            raise BadControl(f"nothing is limited here by {named}")
        windows[named].order(limit=int(body["limit"]), seconds=int(body["seconds"]), used=int(body.get("used", 0)))
        return jsonify(ok=True), 201

    def told(response: Response) -> Response:
        response.headers.update(g.get("limits", {}))
        return response

    app.register_blueprint(routes)
    app.after_request(told)
