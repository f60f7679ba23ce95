"""Endings of a refused refresh in the ledger: blamed on the client, one of its secrets or keys, or nobody.

The grant is not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import Connection

from identity.connections.secrets import SealedSecret
from identity.model import ProviderConnection
from identity.refresh.blame import hold_against, pause_client
from identity.refresh.endings import Ending, Superseded
from identity.refresh.intents import IntentState, RefreshIntent, set_refused_keys
from identity.refresh.requests import in_words
from identity.refresh.settlement import Settlement


def blame_client(
    settlement: Settlement,
    connection: Connection,
    code: str,
    *,
    owner: ProviderConnection,
    shown: Sequence[SealedSecret],
) -> Ending:
    """Pause the provider connection: its client registration was refused.

    Superseded if *owner* or the secrets *shown* have changed since (`pause_client`).
    """

    def write(intent: RefreshIntent) -> Superseded | None:
        if not pause_client(connection, code, owner=owner, asked=intent.opened, shown=shown):
            return Superseded()
        settlement.record(connection, "connection.paused", code, generation=settlement.intent.generation)
        return None

    return _end(settlement, connection, code, write)


def blame_secret(
    settlement: Settlement, connection: Connection, code: str, *, owner: ProviderConnection, secret: str, spare: str
) -> Ending:
    """Mark one client secret refused while another is live: the other is tried, and nothing pauses.

    Superseded if *owner* was corrected or resumed since the request: it must be tried again.
    """

    def write(intent: RefreshIntent) -> Superseded | None:
        held = hold_against(
            connection,
            secret,
            code,
            spare=spare,
            owner=owner,
            asked=intent.opened,
            whom=settlement.whom(settlement.intent.generation),
            audit_id=settlement.ids(),
            now=settlement.now,
        )
        if not held:
            return Superseded()
        # Earlier ones were refused without a named error, perhaps by a gateway. They are all that is left: retry.
        set_refused_keys(connection, intent.id, ())
        return None

    return _end(settlement, connection, code, write)


def note_refused_key(
    settlement: Settlement, connection: Connection, code: str, *, key: str, since: datetime | None = None
) -> Ending:
    """Note a refusal with *key*: another secret is presented, or another key signs, next, for this account only.

    The account's consent may be gone instead, or a gateway may have refused (`Settlement.commit`). *since* is when
    all live secrets had last been refused with this code: refusals of the remaining secrets are counted from it.
    """

    def write(intent: RefreshIntent) -> None:
        set_refused_keys(connection, intent.id, (*intent.refused_keys, key), since=since)

    return _end(settlement, connection, code, write)


def blame_nobody(settlement: Settlement, connection: Connection, code: str, *, retry_at: datetime) -> Ending:
    """Blame nobody: every live secret or key was refused, which says nothing about any one of them.

    Each is tried again.
    """

    def write(intent: RefreshIntent) -> None:
        set_refused_keys(connection, intent.id, ())

    return _end(settlement, connection, code, write, retry_at=retry_at)


def _end(
    settlement: Settlement,
    connection: Connection,
    code: str,
    write: Callable[[RefreshIntent], Superseded | None],
    *,
    retry_at: datetime | None = None,
) -> Ending:
    told, failed = in_words(code), IntentState.FAILED
    return settlement.end(connection, failed, told, write, code=code, retry_at=retry_at, restores=True)
