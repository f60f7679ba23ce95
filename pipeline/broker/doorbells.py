"""Rings, and takes back from the ledger what was not heard, so that the dispatcher need not wait for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import nan

from identity.errors import Unavailable
from identity.model import AccessPattern
from identity.sql.store import CommitUnknown, Store
from pipeline import metrics
from pipeline.ledger.bells import unring
from pipeline.model import Bell, Ring

log = logging.getLogger(__name__)


def measure_lying(ring: Ring) -> None:
    """Set how many bells lie in each queue; no number while the broker does not say."""
    for queue in (*map(str, AccessPattern), "revocations"):
        lying = ring.unheard(queue)
        metrics.BELLS_LYING.labels(queue).set(nan if lying is None else lying)


class Doorbells:
    """A `Ring` over the ledger whose bells it rings."""

    def __init__(self, store: Store, ring: Ring) -> None:
        self._store = store
        self._ring = ring

    def jobs(self, bells: Sequence[Bell]) -> bool:
        """Ring; a bell that failed is outstanding no longer once this returns."""
        if self._ring.jobs(bells):
            return True
        try:
            self._store.write(lambda c: unring(c, bells))
        except (CommitUnknown, Unavailable) as error:  # then they count as outstanding until they are replaced
            log.warning(
                "bells not taken back", extra={"action": "bells.outstanding", "bells": len(bells), "error": str(error)}
            )
        return False

    def revocations(self, ids: Sequence[str]) -> None:
        """Ring for revocations; housekeeping goes on with them by itself."""
        self._ring.revocations(ids)

    def unheard(self, queue: str) -> int | None:
        """How many bells lie in a queue; None where that is not known."""
        return self._ring.unheard(queue)
