"""Replies to people about their action in a chat, sent to the response URL that came with it.

They are sent after the response, like bells, so the sender never waits for our call. One thread per process sends at a
time, including what other threads queued: a hanging chat blocks one web thread, for at most `IN_ALL` after the last
reply was queued. A reply that does not fit the queue, expires in it or is rejected is dropped and logged; the stored
delivery holds the same information.
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
IN_ALL = timedelta(seconds=10)  # for each, queueing included: a hanging chat delays only replies queued meanwhile
# with less time left there is no attempt: it would be sent without waiting for the response
AT_LEAST = timedelta(seconds=1)
_PORTS = {"https": 443, "http": 80}


class Replies:
    """Sends replies to chats, one thread at a time."""

    def __init__(self, http: Client, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._http = http
        self._monotonic = monotonic
        self._waiting: deque[tuple[float, HttpRequest]] = deque()  # when it was queued, and the request
        self._sending = Lock()

    def send_after(self, response: Response, url: str, words: Mapping[str, Any], *, api_url: str) -> None:
        """Send *words* to *url* once *response* was sent, if *url* belongs to the provider of *api_url*.

        A tenant that knows its own connection's signing secret could have signed any address.
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
        while self._waiting:  # checked again after the release: another thread may have queued one in between
            if not self._sending.acquire(blocking=False):
                return
            try:
                self._send_next()
            finally:
                self._sending.release()

    def _send_next(self) -> None:
        """Drop expired replies, then send the first remaining one."""
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
            # Never log the address: it authorizes posting.
            log.warning("a reply was not taken", extra={"action": "reply.not_taken", "reason": said})


def _dropped(replies: int) -> None:
    log.warning("replies were dropped: the chat is slow", extra={"action": "reply.dropped", "replies": replies})


def is_beside(url: str, api_url: str) -> bool:
    """True if *url* is on *api_url*'s host or a subdomain, by the same scheme and port: hooks.slack.com, slack.com."""
    try:
        there, api = urlsplit(url), urlsplit(api_url)
        host, of = there.hostname or "", api.hostname or ""
        port, of_api = there.port or _PORTS.get(there.scheme), api.port or _PORTS.get(api.scheme)
    except ValueError:
        return False
    return bool(of) and (there.scheme, port) == (api.scheme, of_api) and (host == of or host.endswith(f".{of}"))
