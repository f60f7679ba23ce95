"""Short-lived cache of the tenants whose rate limits deliveries count against.

The receiver asks before it accepts, once for each delivery. An answer that is a few seconds old only counts some
deliveries against a former tenant or rate.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, bindparam, select

from identity.sql.prepared import Prepared
from identity.sql.store import Store
from identity.tables import tenants
from pipeline.deliveries.tenant import whose_delivery
from pipeline.model import RatedTenant

KEPT = 10.0  # seconds
MOST = 10_000  # entries; beyond, the cache starts anew

_RATE = Prepared(select(tenants.c.webhook_rate).where(tenants.c.id == bindparam("tenant")))


class RatedTenants:
    """Finds the tenant of a delivery, and its own rate. Shared by all threads."""

    def __init__(self, store: Store, *, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._monotonic = monotonic
        self._known: dict[tuple[str, str | None, str | None], tuple[float, RatedTenant]] = {}

    def find(
        self, connection: str, installation: str | None, workspace: str | None, *, owner: str | None
    ) -> RatedTenant | None:
        """Return the tenant: *owner*, or else that of the installation. None: nobody's, which is never cached."""
        place = (connection, None, None) if owner is not None else (connection, installation, workspace)
        now = self._monotonic()
        if (known := self._known.get(place)) is not None and now < known[0]:
            return known[1]

        def find(c: Connection) -> RatedTenant | None:
            tenant = owner or whose_delivery(c, connection, installation, workspace).tenant
            if tenant is None:
                return None
            return RatedTenant(id=tenant, rate=_RATE.run(c, {"tenant": tenant}).scalar_one())

        if (found := self._store.read(find)) is not None:
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[place] = (now + KEPT, found)
        return found
