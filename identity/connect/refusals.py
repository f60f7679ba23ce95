"""Refused connects: recorded for the person and the audit, with their tokens left to end at the provider."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from identity import audit
from identity.audit import AsWhom
from identity.connect.leftovers import Leftover, end_now, leave
from identity.connect.reasons import OPERATOR, ConnectRefused, Refusal, Why, refuse
from identity.connect_sessions.sessions import ConnectSession, note_outcome
from identity.errors import Misconfigured, Unavailable
from identity.keys.vault import Vault
from identity.sql.persistent_write import PersistentWrite
from identity.sql.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Refusals:
    """Records refused connects."""

    store: Store
    vault: Vault
    ids: Callable[[], str]
    persistent: PersistentWrite = field(default_factory=PersistentWrite)

    def note(self, session: ConnectSession, refusal: Refusal, *, now: datetime) -> ConnectRefused:
        """Record the outcome of a used-up session; return it as shown to the person."""
        refused, audit_id = refusal.refused, self.ids()
        said = {"reason": refused.reason, "next_step": refused.next_step}

        def write(connection: Connection) -> None:
            if not note_outcome(connection, session.id, refused.why, said):
                return  # recorded before, by an earlier run of this write or by a consent stored after all
            end_now(connection, session.started)
            audit.record(
                connection,
                "connect.refused",
                AsWhom.of_account(session.key),
                id=audit_id,
                at=now,
                outcome=refused.why,
                reason=refused.reason,
                detail={"connection": session.key.connection, **refusal.detail},
            )

        if refusal.leftover is None:
            self.store.write(write)
        else:
            self._leave(refusal.leftover, now=now, then=write)
        return ConnectRefused(why=refused.why, reason=refused.reason, next_step=refused.next_step, session=session.id)

    @contextmanager
    def leaving(self, won: Leftover, *, now: datetime) -> Iterator[None]:
        """Record the obtained tokens as leftovers if the block fails. For a Refusal, `note` does so."""
        try:
            with in_words():
                yield
        except Refusal as refusal:
            refusal.leftover = won
            raise
        except Exception:  # an unexpected error: re-raised, but the tokens must still end
            self._leave(won, now=now)
            raise

    def _leave(
        self, won: Leftover, *, now: datetime, then: Callable[[Connection], None] = lambda connection: None
    ) -> None:
        """Store tokens that nothing else knows of, retrying while the ledger is unavailable."""
        sealed = won.sealed(self.vault)
        account_id = self.ids()
        where = {"connection": won.key.connection, "principal": won.key.principal, "connect": str(won.started)}

        def write(connection: Connection) -> None:
            leave(connection, won, sealed, account_id=account_id, now=now)
            then(connection)

        what = f"what a refused connect of account {won.key} had won"
        try:
            self.persistent.write(
                self.store, write, what=what, where={"action": "connect.leftover_not_stored", **where}
            )
        except Unavailable:
            log.error("%s may stay valid at its provider", what, extra={"action": "connect.leftover_lost", **where})
            raise


@contextmanager
def in_words() -> Iterator[None]:
    """Turn errors in the block into a Refusal, in words for the person."""
    try:
        yield
    except Unavailable:
        refuse(Why.INTERRUPTED, "the consent could not be stored just now", final=True)
    except Misconfigured as fault:
        refuse(Why.OPERATOR, "this installation is not set up for that", OPERATOR, final=True, fault=str(fault))
