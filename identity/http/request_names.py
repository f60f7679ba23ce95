"""Headers that identify our own requests in a provider's log, other than the calls of steps.

A step's call carries its attempt's id (`pipeline.upstream.ATTEMPT_HEADER`). The ledger has every such id before the
request leaves, so that a provider's log can be compared with it.
"""

from __future__ import annotations

from dataclasses import replace

from identity.http.client import HttpRequest

REFRESH_HEADER = "X-Aswhom-Refresh"  # the refresh intent, or the mint of a token for one repository
CONNECT_HEADER = "X-Aswhom-Connect"  # the connect session's number, which becomes the grant's `consented`
REVOCATION_HEADER = "X-Aswhom-Revocation"  # the revocation, or the withdrawal if no revocation has claimed it


def named(request: HttpRequest, header: str, id: str) -> HttpRequest:
    """Return the request with that id in *header*."""
    return replace(request, headers={**request.headers, header: id})
