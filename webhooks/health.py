"""`/healthz`: the process is up. `/readyz`: it could accept a delivery now."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from flask import Blueprint, Response, jsonify

from pipeline.workflow import Registry
from webhooks.ledger import Ledger

log = logging.getLogger(__name__)

_TOLD_EVERY = 3600  # seconds


def health(ledger: Ledger, workflows: Registry, *, monotonic: Callable[[], float] = time.monotonic) -> Blueprint:
    """The two questions a supervisor asks."""
    pages = Blueprint("health", __name__)
    looked = -math.inf

    @pages.get("/healthz")
    def alive() -> Response:
        return jsonify(status="up")

    @pages.get("/readyz")
    def ready() -> Response:
        nonlocal looked
        ledger.ready()
        if monotonic() - looked >= _TOLD_EVERY:
            looked = monotonic()
            tell_of_what_is_not_installed()
        return jsonify(status="ready")

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
