"""How a refusal ends a refresh in the ledger: it is held against the client, one of its secrets or keys, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from identity.connections.secrets import SealedSecret
from identity.minting.requests import in_words
from identity.model import ProviderConnection
from identity.refresh.blame import hold_against, pause_client
from identity.refresh.endings import Ending, Superseded
from identity.refresh.intents import IntentState, RefreshIntent, set_refused_keys
from identity.refresh.settlement import Settlement


@dataclass(frozen=True)
class Blaming:
    """The ends of a refresh that was refused, by whom that is held against. The grant is not touched."""

    settlement: Settlement

    def client(
        self, connection: Connection, code: str, *, owner: ProviderConnection, shown: Sequence[SealedSecret]
    ) -> Ending:
        """The client registration was refused: the provider connection pauses.

        Superseded if *owner* or what was *shown* of its secrets is not what holds now (`pause_client`).
        """

        def write(intent: RefreshIntent) -> Superseded | None:
            if not pause_client(connection, code, owner=owner, asked=intent.opened, shown=shown):
                return Superseded()
            self.settlement.record(connection, "connection.paused", code, generation=self.settlement.intent.generation)
            return None

        return self._end(connection, code, write)

    def secret(
        self, connection: Connection, code: str, *, owner: ProviderConnection, secret: str, spare: str
    ) -> Ending:
        """One secret of the client was refused while another is live: that one is tried, and nothing pauses.

        Superseded if *owner* was corrected or resumed since the request was made by it: then it is to be tried again.
        """

        def write(intent: RefreshIntent) -> Superseded | None:
            held = hold_against(
                connection,
                secret,
                code,
                spare=spare,
                owner=owner,
                asked=intent.opened,
                whom=self.settlement.whom(self.settlement.intent.generation),
                audit_id=self.settlement.ids(),
                now=self.settlement.now,
            )
            if not held:
                return Superseded()
            # Those before it were refused without a name, as a gateway may have done: now they are what is left.
            set_refused_keys(connection, intent.id, ())
            return None

        return self._end(connection, code, write)

    def key(self, connection: Connection, code: str, *, key: str, since: datetime | None = None) -> Ending:
        """With *key*, what was sent was refused: another one is shown or signs next, for this account alone.

        It may be the account's consent that is gone, or a gateway that refused (`Settlement.commit`). *since* is when
        all live ones had last been refused so: a time that is past keeps nobody waiting, and is kept for the others'
        turn.
        """

        def write(intent: RefreshIntent) -> None:
            set_refused_keys(connection, intent.id, (*intent.refused_keys, key))

        return self._end(connection, code, write, retry_at=since)

    def nobody(self, connection: Connection, code: str, *, retry_at: datetime) -> Ending:
        """It was refused, whichever live secret was shown or key signed: nobody knows whose fault it is.

        Then it says nothing of any of them: each is tried again.
        """

        def write(intent: RefreshIntent) -> None:
            set_refused_keys(connection, intent.id, ())

        return self._end(connection, code, write, retry_at=retry_at)

    def _end(
        self,
        connection: Connection,
        code: str,
        write: Callable[[RefreshIntent], Superseded | None],
        *,
        retry_at: datetime | None = None,
    ) -> Ending:
        told, failed = in_words(code), IntentState.FAILED
        return self.settlement.end(connection, failed, told, write, code=code, retry_at=retry_at, restores=True)
