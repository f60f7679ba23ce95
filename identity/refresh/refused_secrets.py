"""Record of a provider's refusal of one client secret while another is live, so that the other is tried first."""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy import Connection

from identity.audit import AsWhom
from identity.connections.secrets import SealedSecret
from identity.model import ProviderConnection
from identity.refresh.blame import hold_against
from identity.sql.store import CommitUnknown, Store

log = logging.getLogger(__name__)


def note_refused(
    store: Store,
    secret: SealedSecret,
    *,
    owner: ProviderConnection,
    asked: int,
    spare: SealedSecret,
    code: str,
    tenant: str,
    audit_id: str,
    now: datetime,
) -> None:
    """Record that *secret* was refused with *code* and that *spare* is presented instead. Raises Unavailable.

    Records nothing if the connection no longer equals *owner*, with which the request was made, or was resumed since
    the ledger number *asked*: then *secret* deserves another try.
    """

    def note(connection: Connection) -> None:
        hold_against(
            connection,
            secret.id,
            code,
            spare=spare.id,
            owner=owner,
            asked=asked,
            whom=AsWhom(tenant=tenant),
            audit_id=audit_id,
            now=now,
        )

    try:
        store.write(note)
    except CommitUnknown:
        # The request matters more than the record: the next refusal of this secret is recorded instead.
        where = {"action": "connection.commit_unknown", "secret": secret.id}
        log.warning("whether a refused secret is noted is not known", extra=where)
