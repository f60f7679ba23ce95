"""Reads on after refusing a request, so that the sender sees the response and not a reset (RFC 9112 §9.6).

If a server closes a connection with unread bytes, the kernel resets it. Most senders write the whole body before they
read, and would never see why they were refused. The response goes out first; reading on follows it.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from flask import Response, request

BYTES = 32_000_000  # GitHub sends up to 25 MB
SECONDS = 10.0
SILENCE = 2.0  # seconds without a byte: the sender waits for us, and has its response


def read_on_after(response: Response) -> None:
    """Once *response* was sent, read the rest of the request's body, within bounds."""
    # Without the server's socket a read could not be bounded, and a silent sender would block a thread.
    if (connection := request.environ.get("gunicorn.socket")) is not None:
        response.call_on_close(partial(_read_on, request.environ["wsgi.input"], connection))


def _read_on(body: Any, connection: Any) -> None:
    deadline, left = time.monotonic() + SECONDS, BYTES
    before = connection.gettimeout()
    try:
        while left > 0 and (wait := deadline - time.monotonic()) > 0:
            connection.settimeout(min(wait, SILENCE))
            piece = body.read(min(left, 65536))
            if not piece:
                break
            left -= len(piece)
        connection.settimeout(before)
    except OSError:
        return  # silent or gone: the server closes the connection
