"""`/healthz`: the process is up. `/readyz`: it can accept a delivery, as of at most a second ago.

Unauthenticated callers may ask as often as they like: the ledger is checked at most once a second.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from flask import Blueprint, Response, jsonify

from identity.errors import Unavailable
from pipeline.authoring.registry import Registry
from pipeline.cached_check import CachedCheck
from webhooks import problems
from webhooks.ledger import Ledger

log = logging.getLogger(__name__)

_TOLD_EVERY = 3600  # seconds
# seconds, for why it is not ready: probes ask each second, and the log may lie on the disk that is full
_TOLD_AGAIN = 60
_FRESH = 1  # second


def health(
    ledger: Ledger,
    workflows: Registry,
    *,
    signing_key: str | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Blueprint:
    """Serve both probes. *signing_key*: the id of the installation's signing key, which identifies the installation.

    The id discloses nothing: it is the digest of a public key.
    """
    pages = Blueprint("health", __name__)
    look = CachedCheck(ledger.ready, believed=_FRESH, doubted=_FRESH, monotonic=monotonic)
    looked = -math.inf
    logged, told, is_told = "", -math.inf, False

    @pages.get("/healthz")
    def alive() -> Response:
        return jsonify(status="up")

    @pages.get("/readyz")
    def ready() -> Response:
        nonlocal looked, is_told
        look.result()
        if is_told:
            is_told = False
            log.warning("ready again", extra={"action": "request.available"})
        if monotonic() - looked >= _TOLD_EVERY:
            looked = monotonic()
            tell_of_what_is_not_installed()
        return jsonify(status="ready") if signing_key is None else jsonify(status="ready", signing_key=signing_key)

    @pages.errorhandler(Unavailable)
    def not_ready(error: Unavailable) -> Response:
        nonlocal logged, told, is_told
        if str(error) != logged or monotonic() - told >= _TOLD_AGAIN:
            logged, told, is_told = str(error), monotonic(), True
            log.warning("not ready: %s", error, extra={"action": "request.unavailable"})
        return problems.Problem.not_now(error).document()

    def tell_of_what_is_not_installed() -> None:
        """Log workflows that are switched on but not installed; nothing else reports it.

        All other deliveries are still accepted, so the web counts as ready.
        """
        for name in ledger.not_installed(workflows):
            log.error(
                "%s is on and not installed here, so deliveries that want it are ignored: install it, then "
                "`aswhom deliveries replay --since` the time this host has lacked it",
                name,
                extra={"action": "workflows.not_installed", "of": name},
            )

    return pages
