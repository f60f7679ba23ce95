"""What a person is told of what they did in a chat, sent to the address that the chat gave with it.

After the answer, as bells are rung: the sender waits for no call of ours. One thread of a process sends at a time, what
others leave behind too: a chat that hangs holds up one of the web's threads, until `IN_ALL` after the last that it was
left. What does not fit, could not be tried by then, or is not taken, is dropped, and the log says so: the delivery says
the same.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from werkzeug.wrappers import Response

from identity.http.client import Answer, Client, HttpRequest

log = logging.getLogger(__name__)

WAITING = 100
WITHIN = timedelta(seconds=5)
IN_ALL = timedelta(seconds=10)  # of each, with its wait: a chat that hangs costs only those that came while it did
AT_LEAST = timedelta(seconds=1)  # less is no try: it would be sent, and its answer not waited for
_PORTS = {"https": 443, "http": 80}


class Replies:
    """Sends words to chats, one thread at a time."""

    def __init__(self, http: Client, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._http = http
        self._monotonic = monotonic
        self._waiting: deque[tuple[float, HttpRequest]] = deque()  # since when, and what
        self._sending = Lock()

    def send_after(self, response: Response, url: str, words: Mapping[str, Any], *, api_url: str) -> None:
        """Send *words* to *url* once *response* was sent, if that is of the same provider as *api_url*.

        A tenant that has the signing secret of its own connection could have signed any address.
        """
        if not is_beside(url, api_url):
            log.warning("no reply: the address is not the provider's", extra={"action": "reply.elsewhere"})
            return
        body = json.dumps(words).encode()
        request = HttpRequest(method="POST", url=url, headers={"content-type": "application/json"}, body=body)
        response.call_on_close(partial(self._send, request))

    def _send(self, request: HttpRequest) -> None:
        if len(self._waiting) >= WAITING:
            _dropped(1)
            return
        self._waiting.append((self._monotonic(), request))
        while self._waiting:  # looked at again after the release: one may have been left in between
            if not self._sending.acquire(blocking=False):
                return
            try:
                self._send_next()
            finally:
                self._sending.release()

    def _send_next(self) -> None:
        """Send the first that is not late, and drop those before it."""
        oldest = self._monotonic() - (IN_ALL - AT_LEAST).total_seconds()
        late = 0
        while self._waiting and self._waiting[0][0] < oldest:
            self._waiting.popleft()
            late += 1
        if late:
            _dropped(late)
        if self._waiting:
            since, request = self._waiting.popleft()
            self._send_one(request, within=min(AT_LEAST + timedelta(seconds=since - oldest), WITHIN))

    def _send_one(self, request: HttpRequest, *, within: timedelta) -> None:
        outcome = self._http.send(request, within=within)
        if not (isinstance(outcome, Answer) and outcome.status < 300):
            said = f"status {outcome.status}" if isinstance(outcome, Answer) else outcome.reason
            # Never its address: whoever has that can post.
            log.warning("a reply was not taken", extra={"action": "reply.not_taken", "reason": said})


def _dropped(replies: int) -> None:
    log.warning("replies were dropped: the chat is slow", extra={"action": "reply.dropped", "replies": replies})


def is_beside(url: str, api_url: str) -> bool:
    """Whether *url* is at the host and port of *api_url*, or below, and as safe: hooks.slack.com for slack.com/api."""
    try:
        there, api = urlsplit(url), urlsplit(api_url)
        host, of = there.hostname or "", api.hostname or ""
        port, of_api = there.port or _PORTS.get(there.scheme), api.port or _PORTS.get(api.scheme)
    except ValueError:
        return False
    return bool(of) and (there.scheme, port) == (api.scheme, of_api) and (host == of or host.endswith(f".{of}"))
