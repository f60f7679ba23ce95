"""The connect flow as the web sees it: a completed consent wakes the jobs that waited for it, in its own commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from identity.connect import Connect, ConnectRefused
from identity.connections import get_connection
from identity.errors import Misconfigured
from identity.model import AccountKey
from identity.store import Store
from pipeline.ledger import jobs


@dataclass(frozen=True, kw_only=True)
class Connected:
    """What the person is told."""

    provider: str
    login: str
    principal: str
    missing_scopes: tuple[str, ...]


class Connecting:
    """Begins and finishes connect sessions for the browser."""

    def __init__(self, store: Store, connect: Connect) -> None:
        self._store = store
        self._connect = connect

    def authorize(self, session: str, *, browser: str, now: datetime) -> str:
        """Where to send the browser. Raises BadInput for a link that is used, expired or another browser's."""
        return self._connect.authorize(session, browser=browser, now=now)

    def finish(
        self, connection: str, params: Mapping[str, str], *, browser: str, now: datetime
    ) -> Connected | ConnectRefused:
        """The callback at *connection*'s own address."""
        finished = self._connect.finish(params, browser=browser, connection_id=connection, now=now, also=wake_waiting)
        if isinstance(finished, ConnectRefused):
            return finished
        return Connected(
            provider=self._provider(connection),
            login=(finished.external.login if finished.external else None) or finished.key.principal,
            principal=finished.key.principal,
            missing_scopes=finished.missing_scopes,
        )

    def _provider(self, connection: str) -> str:
        try:
            return self._store.read(lambda c: get_connection(c, connection)).provider
        except Misconfigured:
            return connection


def wake_waiting(connection: Connection, key: AccountKey) -> None:
    """Queue the jobs that waited for that account's consent, in the consent's own commit."""
    jobs.wake(connection, jobs.consent_of(key))
