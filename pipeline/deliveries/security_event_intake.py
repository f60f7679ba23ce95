"""Intake of Security Event Tokens for the web: the transmitter, its key, and acceptance in one commit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection

from identity.ids import Ids
from identity.oauth.jose import Key, Signed
from identity.oauth.jwks import KeyRing
from identity.sql.store import Store, write_idempotent
from identity.transmitters import Transmitter, find_transmitter, hold_transmitter, note_stream
from pipeline.model import Acceptance, DeliveryOutcome, SecurityEvent
from pipeline.revocation import security_events


class SecurityEventIntake:
    """Accepts verified Security Event Tokens."""

    def __init__(self, store: Store, keys: KeyRing, ids: Ids, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._keys = keys
        self._ids = ids
        self._clock = clock

    def transmitter(self, transmitter: str) -> Transmitter | None:
        """Return the registered transmitter with that id."""
        return self._store.read(lambda c: find_transmitter(c, transmitter))

    def key(self, transmitter: Transmitter, token: Signed) -> Key | None:
        """Return the transmitter's key that *token* names. Raises Unavailable."""
        return self._keys.key(transmitter.jwks_url, token)

    def accept(self, event: SecurityEvent, transmitter: Transmitter) -> Acceptance | None:
        """Commit a token and its consequences; None: its transmitter was removed meanwhile. Raises Unavailable."""
        id, now = self._ids("rev"), self._clock()

        def accept(c: Connection) -> Acceptance | None:
            if not hold_transmitter(c, transmitter.id):
                return security_events.taken_before(c, event, transmitter)  # by an earlier try, before the removal
            accepted = security_events.accept(c, event, transmitter, id=id, now=now)
            if event.stream is not None and accepted.outcome is not DeliveryOutcome.DUPLICATE:
                note_stream(c, transmitter.id, event.stream, told_at=event.issued_at or now)
            return accepted

        # The jti is the key, so a repeated write reports the result of the first.
        return write_idempotent(self._store, accept)
