"""That a provider refused one secret of a client while another is live, written down: the other goes first then."""

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
    """Note that *secret* was refused with *code*, and that *spare* is shown instead. Raises Unavailable.

    Nothing is noted if the connection is another by now than *owner*, as the request was made by it, or was resumed
    since the ledger number *asked*: then *secret* is to be tried again.
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
        # What was asked for is worth more than the note: the next refusal of this secret is noted instead.
        where = {"action": "connection.commit_unknown", "secret": secret.id}
        log.warning("whether a refused secret is noted is not known", extra=where)
