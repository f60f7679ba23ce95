"""Logs who floods a public app: a dropped delivery leaves no other trace."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

_TOLD_EACH = 60.0  # seconds
_MOST = 100  # lines in that time: anybody can create installations


class Strangers:
    """Logs whose deliveries are dropped, once a minute for each installation."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._minute = -1
        self._told: set[tuple[str, str | None]] = set()

    def dropped(self, source: str, connection: str, installation: str | None) -> None:
        """Log a dropped delivery of this installation, unless it was logged this minute."""
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
