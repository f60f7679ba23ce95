"""GitHub's primary rate limit: so many requests a window for each token's owner, said by headers, and refused beyond.

https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
"""

import threading
from dataclasses import dataclass

from flask import Blueprint, Response, g, jsonify

from deploy.sandbox.github.bearer import Bearer, Refused
from deploy.sandbox.journal import Clock
from deploy.sandbox.surface import json_body


@dataclass(kw_only=True)
class Window:
    used: int
    resets: int  # epoch seconds


class Limits:
    """By user, and by installation."""

    def __init__(self, *, clock: Clock, limit: int = 5000, seconds: int = 3600) -> None:
        self._clock = clock
        self._limit, self._seconds = limit, seconds
        self._windows: dict[str, Window] = {}
        self._lock = threading.Lock()

    def order(self, *, limit: int, seconds: int) -> None:
        """Another limit from now on; what was counted is forgotten."""
        with self._lock:
            self._limit, self._seconds = limit, seconds
            self._windows.clear()

    def count(self, bearer: Bearer) -> None:
        """One more request. Raises Refused."""
        whose = f"user {bearer.user}" if bearer.user else f"installation {bearer.installations[0].id}"
        now = int(self._clock().timestamp())
        with self._lock:
            window = self._windows.get(whose)
            if window is None or window.resets <= now:
                window = self._windows[whose] = Window(used=0, resets=now + self._seconds)
            exceeded = window.used >= self._limit
            window.used += not exceeded
            g.limit = {
                "x-ratelimit-limit": str(self._limit),
                "x-ratelimit-remaining": str(self._limit - window.used),
                "x-ratelimit-used": str(window.used),
                "x-ratelimit-reset": str(window.resets),
                "x-ratelimit-resource": "core",
            }
        if exceeded:
            raise Refused(403, f"API rate limit exceeded for {whose}.")


def say(response: Response) -> Response:
    """The headers of the request's window, if it was counted."""
    response.headers.update(g.get("limit", {}))
    return response


def ordering(limits: Limits) -> Blueprint:
    """The control that sets another limit."""
    routes = Blueprint("limits", __name__)

    @routes.post("/_sandbox/limits")
    def order() -> tuple[Response, int]:
        body = json_body("limit", "seconds")
        limits.order(limit=int(body["limit"]), seconds=int(body["seconds"]))
        return jsonify(ok=True), 201

    return routes
