"""The headers by which a provider's own log says what it was asked for, where that was no step's call.

A step's call carries its attempt's id (`pipeline.upstream.ATTEMPT_HEADER`). What an id names is in the ledger before
the request leaves, so that a log can be held against it.
"""

from __future__ import annotations

from dataclasses import replace

from identity.http.client import HttpRequest

REFRESH_HEADER = "X-Aswhom-Refresh"  # the refresh intent; or the mint of a token for one repository
CONNECT_HEADER = "X-Aswhom-Connect"  # the connect session's number, which becomes the grant's `consented`
REVOCATION_HEADER = "X-Aswhom-Revocation"  # the revocation; or the withdrawal, where no revocation has claimed it


def named(request: HttpRequest, header: str, id: str) -> HttpRequest:
    """The request with that name on it."""
    return replace(request, headers={**request.headers, header: id})
