"""Rate limits: so much a window for each who is counted. How it is said, and refused beyond, is each upstream's own."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from flask import Blueprint, Flask, Response, g, jsonify

from deploy.sandbox.journal import Clock
from deploy.sandbox.surface import BadControl, json_body


@dataclass(frozen=True, kw_only=True)
class Count:
    """What somebody has used of a window."""

    limit: int
    used: int
    resets: int  # epoch seconds
    exceeded: bool  # by the request that asked for more than was left; it was not counted

    @property
    def remaining(self) -> int:
        return self.limit - self.used


@dataclass(kw_only=True)
class _Window:
    used: int
    resets: int


class Windows:
    """One for each who is counted; it begins with their first request."""

    def __init__(self, *, clock: Clock, limit: int, seconds: int) -> None:
        self._clock = clock
        self._limit, self._seconds, self._before = limit, seconds, 0
        self._windows: dict[str, _Window] = {}
        self._lock = threading.Lock()

    def order(self, *, limit: int, seconds: int, used: int = 0) -> None:
        """Another limit from now on, of which others have used some; what was counted is forgotten."""
        with self._lock:
            self._limit, self._seconds, self._before = limit, seconds, used
            self._windows.clear()

    def count(self, whose: str, cost: int = 1) -> Count:
        """One more request."""
        now = int(self._clock().timestamp())
        with self._lock:
            window = self._windows.get(whose)
            if window is None or window.resets <= now:
                window = self._windows[whose] = _Window(used=self._before, resets=now + self._seconds)
            exceeded = window.used + cost > self._limit
            window.used += 0 if exceeded else cost
            return Count(limit=self._limit, used=window.used, resets=window.resets, exceeded=exceeded)


def say(headers: Mapping[str, str]) -> None:
    """The answer to this request has these headers, too."""
    g.limits = {**g.get("limits", {}), **headers}


def limit(app: Flask, **windows: Windows) -> None:
    """Give the answers of *app* what is said of its limits, and the control surface the order of others."""
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
