"""Ringing with bookkeeping: failed bells are taken back in the ledger, so the dispatcher need not wait for them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import nan

from identity.errors import Unavailable
from identity.model import AccessPattern
from identity.sql.store import CommitUnknown, Store
from pipeline import metrics
from pipeline.jobs.bells import unring
from pipeline.model import Bell, Ring

log = logging.getLogger(__name__)


def measure_lying(ring: Ring) -> None:
    """Set the number of bells in each queue; no number while the broker does not answer."""
    for queue in (*map(str, AccessPattern), "revocations"):
        lying = ring.unheard(queue)
        metrics.BELLS_LYING.labels(queue).set(nan if lying is None else lying)


class Doorbells:
    """A `Ring` over the ledger whose bells it rings."""

    def __init__(self, store: Store, ring: Ring) -> None:
        self._store = store
        self._ring = ring

    def jobs(self, bells: Sequence[Bell]) -> bool:
        """Ring; a bell that failed is no longer outstanding when this returns."""
        if self._ring.jobs(bells):
            return True
        try:
            self._store.write(lambda c: unring(c, bells))
        except (CommitUnknown, Unavailable) as error:  # they count as outstanding until they are replaced
            log.warning(
                "bells not taken back", extra={"action": "bells.outstanding", "bells": len(bells), "error": str(error)}
            )
        return False

    def revocations(self, ids: Sequence[str]) -> None:
        """Ring for revocations; housekeeping also advances them by itself."""
        self._ring.revocations(ids)

    def unheard(self, queue: str) -> int | None:
        """Return the number of bells in a queue; None if it is unknown."""
        return self._ring.unheard(queue)
