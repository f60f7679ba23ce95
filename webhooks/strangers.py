"""Whoever floods a public app is named in the log: of what is dropped nothing else stays."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

_TOLD_EACH = 60.0  # seconds
_MOST = 100  # lines in that time: anybody can make installations


class Strangers:
    """Says whose deliveries are dropped: once a minute for each installation."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._minute = -1
        self._told: set[tuple[str, str | None]] = set()

    def dropped(self, source: str, connection: str, installation: str | None) -> None:
        """One of its deliveries is."""
        with self._lock:
            if (minute := int(self._monotonic() / _TOLD_EACH)) != self._minute:
                self._minute = minute
                self._told.clear()
            whose = connection, installation
            if whose in self._told or len(self._told) >= _MOST:
                return
            self._told.add(whose)
        where = {"source": source, "connection": connection, "installation": installation}
        log.warning("deliveries of no tenant's are dropped", extra={"action": "delivery.dropped", **where})
