"""What a person is told of what they did in a chat, sent to the address that the chat gave with it.

After the answer, as bells are rung: the sender waits for no call of ours. One thread of a process sends at a time, so a
chat that hangs holds up one; what does not fit, or is not taken, is dropped: the delivery says the same.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from werkzeug.wrappers import Response

from identity.http import Answer, Client, HttpRequest

log = logging.getLogger(__name__)

WAITING = 100
WITHIN = timedelta(seconds=5)


class Replies:
    """Sends words to chats, one thread at a time."""

    def __init__(self, http: Client) -> None:
        self._http = http
        self._waiting: deque[HttpRequest] = deque(maxlen=WAITING)
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
        self._waiting.append(request)
        while self._waiting:  # looked at again after the release: one may have been left in between
            if not self._sending.acquire(blocking=False):
                return
            try:
                while self._waiting:
                    self._send_one(self._waiting.popleft())
            finally:
                self._sending.release()

    def _send_one(self, request: HttpRequest) -> None:
        outcome = self._http.send(request, within=WITHIN)
        if not (isinstance(outcome, Answer) and outcome.status < 300):
            said = f"status {outcome.status}" if isinstance(outcome, Answer) else outcome.reason
            # Never its address: whoever has that can post.
            log.warning("a reply was not taken", extra={"action": "reply.not_taken", "reason": said})


def is_beside(url: str, api_url: str) -> bool:
    """Whether *url* is at the host of *api_url*, or below it, and as safe: hooks.slack.com for slack.com/api."""
    try:
        there, api = urlsplit(url), urlsplit(api_url)
        host, of = there.hostname or "", api.hostname or ""
    except ValueError:
        return False
    return bool(of) and there.scheme == api.scheme and (host == of or host.endswith(f".{of}"))
