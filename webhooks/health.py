"""`/healthz`: the process is up. `/readyz`: it could accept a delivery, now or a second ago.

Strangers may ask as often as they like: a second's questions cost the ledger one look.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from flask import Blueprint, Response, jsonify

from pipeline.workflow import Registry
from webhooks.ledger import Ledger

log = logging.getLogger(__name__)

_TOLD_EVERY = 3600  # seconds
_FRESH = 1  # second


class _Look:
    """What was found when it was last looked, once for all who ask meanwhile."""

    def __init__(self, look: Callable[[], None], monotonic: Callable[[], float]) -> None:
        self._look = look
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._fresh_until = -math.inf
        self._fault: Exception | None = None

    def result(self) -> None:
        """Return, or raise, as the look did."""
        with self._lock:
            if self._monotonic() >= self._fresh_until:
                try:
                    self._look()
                except Exception as fault:  # noqa: BLE001 - raised below, to each who asks
                    self._fault = fault
                else:
                    self._fault = None
                self._fresh_until = self._monotonic() + _FRESH
            if self._fault is not None:
                raise self._fault.with_traceback(None)


def health(
    ledger: Ledger,
    workflows: Registry,
    *,
    signing_key: str | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Blueprint:
    """The two questions a supervisor asks. *signing_key*: the id of the installation's, which tells whose web answers.

    It tells a stranger nothing: it is the digest of a public key.
    """
    pages = Blueprint("health", __name__)
    look = _Look(ledger.ready, monotonic)
    looked = -math.inf

    @pages.get("/healthz")
    def alive() -> Response:
        return jsonify(status="up")

    @pages.get("/readyz")
    def ready() -> Response:
        nonlocal looked
        look.result()
        if monotonic() - looked >= _TOLD_EVERY:
            looked = monotonic()
            tell_of_what_is_not_installed()
        return jsonify(status="ready") if signing_key is None else jsonify(status="ready", signing_key=signing_key)

    def tell_of_what_is_not_installed() -> None:
        """Nothing else says that its deliveries are ignored here. What else comes is taken, so the web is ready."""
        for name in ledger.not_installed(workflows):
            log.error(
                "%s is on and not installed here, so deliveries that want it are ignored: install it, then "
                "`aswhom deliveries replay --since` the time this host has lacked it",
                name,
                extra={"action": "workflows.not_installed", "of": name},
            )

    return pages
