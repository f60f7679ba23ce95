"""Asking the provider about a signal that may be a replay, after it was followed (docs/revocation.md).

GitHub's `github_app_authorization` has no time and the same bytes each time. A repetition, or a possible echo of our
own request, still revokes; then the provider is asked whether the revoked token is alive there. If it is, the receipt
says `replayed signal`, and the person may connect again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, select, text, update

from identity import audit
from identity.accounts.grants import ACCESS, Grant, get_grant, token_binding
from identity.accounts.states import Account, find_account
from identity.audit import AsWhom
from identity.connections.registry import get_connection
from identity.connections.secrets import CLIENT_SECRET, SealedSecret, live_secrets
from identity.hold import find_hold, last_release
from identity.http.client import Answer, Client
from identity.http.request_names import REVOCATION_HEADER, named
from identity.keys.vault import Vault
from identity.model import AccountKey, AccountState, Credential, ProviderConnection
from identity.providers.profile import Liveness, Profile
from identity.sql.columns import database_now
from identity.sql.store import Store
from identity.withdrawals.withdrawal import is_refreshing, was_presented_in_vain
from pipeline.revocation.declaration import load_without_receipt
from pipeline.revocation.tables import revocations

log = logging.getLogger(__name__)

UNFINISHED = text("state <> 'quiesced'")  # must match the condition of the partial index word for word


class SignalDoubt(StrEnum):
    """The verdict on whether a revocation's signal was a replay."""

    OPEN = "open"  # the provider is to be asked
    ALIVE = "alive"  # the provider still accepts the token: it was a replay, or an echo of our request
    DEAD = "dead"  # the provider does not accept it: the signal was true
    UNKNOWN = "unknown"  # could not be found out: everything is asked to end, as if no signal had said that it has


SAYS: Mapping[str, str] = {
    SignalDoubt.ALIVE: "replayed signal: the provider still accepts the authorization, so the person may connect again",
    SignalDoubt.DEAD: "the provider does not accept the authorization any more",
    SignalDoubt.UNKNOWN: "it may have been a replayed signal: the provider could not tell",
}


@dataclass(frozen=True, kw_only=True)
class _Case:
    """Everything needed to ask the provider."""

    account: Account
    grant: Grant
    owner: ProviderConnection
    secret: SealedSecret
    asked_since: timedelta
    refreshing: bool  # a refresh that may end the token has not ended
    presented: bool  # a refresh may have ended the token, and with it nothing else of the authorization


class Inquirer:
    """Asks about doubtful signals. `settle` is safe to repeat, and to run in two processes at once."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        http: Client,
        profiles: Mapping[str, Profile],
        *,
        clock: Callable[[], datetime],
        budget: timedelta = timedelta(seconds=10),
        patience: timedelta = timedelta(minutes=2),
    ) -> None:
        self._store = store
        self._vault = vault
        self._http = http
        self._profiles = profiles
        self._clock = clock
        self._budget = budget
        self._patience = patience

    def settle(self, revocation: str) -> bool:
        """Ask about a revocation's signal if it is in doubt. True: there is nothing left to ask.

        While the installation is held, the provider is not asked, however long that takes.
        """
        row = self._store.read(lambda c: load_without_receipt(c, revocation))
        if row.doubt != SignalDoubt.OPEN:
            return True
        if self._store.read(find_hold) is not None:
            self._store.write(lambda c: _note(c, revocation, SignalDoubt.OPEN, now=self._clock()))
            return False
        released = self._store.read(lambda c: last_release(c, after=row.number))  # nobody was asked until then
        key, since = AccountKey.parse(row.key), self._clock() - max(row.effective_at, released or row.effective_at)
        verdict = self._verdict(revocation, key, number=row.number, since=since)
        now = self._clock()
        self._store.write(lambda c: _note(c, revocation, verdict, now=now))
        return verdict is not SignalDoubt.OPEN

    def _verdict(self, revocation: str, key: AccountKey, *, number: int, since: timedelta) -> SignalDoubt:
        case = self._store.read(lambda c: _case(c, key, number=number, since=since, now=self._clock()))
        profile = None if case is None else self._profiles.get(case.account.provider)
        if case is None or profile is None or profile.liveness is None:
            return SignalDoubt.UNKNOWN
        alive = None if case.refreshing else self._ask(case, profile.liveness, revocation)
        if alive:
            return SignalDoubt.ALIVE
        if alive is False:  # GitHub ends the access token at a refresh too, and that leaves its replacement alive
            return SignalDoubt.UNKNOWN if case.presented else SignalDoubt.DEAD
        return SignalDoubt.OPEN if case.asked_since < self._patience else SignalDoubt.UNKNOWN

    def _ask(self, case: _Case, liveness: Liveness, revocation: str) -> bool | None:
        """Return whether the token is alive; None: the provider gives no answer now."""
        account, grant = case.account, case.grant
        binding = token_binding(account.key.tenant, account.id, account.provider, ACCESS, grant.generation)
        token = self._vault.open(grant.access_sealed or b"", binding)
        request = liveness.request(case.owner, case.secret.open(self._vault), token)
        answer = self._http.send(named(request, REVOCATION_HEADER, revocation), within=self._budget)
        if isinstance(answer, Answer) and (alive := liveness.read(answer)) is not None:
            return alive
        why = f"status {answer.status}" if isinstance(answer, Answer) else answer.reason
        where = {"action": "revocation.not_told", "revocation": revocation}
        log.warning("the provider does not say whether a signal was a replay: %s", why, extra=where)
        return None


def open_doubts(connection: Connection) -> list[str]:
    """Return the revocations with a signal still in doubt, oldest first."""
    columns = revocations.c
    in_doubt = select(columns.id).where(UNFINISHED, columns.doubt == SignalDoubt.OPEN)
    return list(connection.execute(in_doubt.order_by(columns.number)).scalars())


def _case(connection: Connection, key: AccountKey, *, number: int, since: timedelta, now: datetime) -> _Case | None:
    """Return the case to ask about. None: nothing is left to ask about, or with.

    The token of a newer consent says nothing about the one before.
    """
    account = find_account(connection, key)
    if account is None or account.state is not AccountState.REVOKED:
        return None
    grant, secrets = get_grant(connection, account.id), live_secrets(connection, key.connection, CLIENT_SECRET)
    if account.credential is not Credential.AUTHORIZATION_CODE or not secrets:
        return None
    if grant is None or grant.consented > number or grant.access_sealed is None:
        return None
    if grant.expires_at is not None and grant.expires_at <= now:
        return None  # dead either way
    owner = get_connection(connection, key.connection)
    return _Case(
        account=account,
        grant=grant,
        owner=owner,
        secret=secrets[0],
        asked_since=since,
        refreshing=is_refreshing(connection, account.id),
        presented=was_presented_in_vain(connection, account.id, grant.generation),
    )


def _note(connection: Connection, revocation: str, verdict: SignalDoubt, *, now: datetime) -> None:
    settled = update(revocations).where(revocations.c.id == revocation, revocations.c.doubt == SignalDoubt.OPEN)
    # moved_at is set, so that housekeeping waits before it asks again
    noted = connection.execute(settled.values(doubt=verdict, moved_at=database_now())).rowcount
    if noted and verdict != SignalDoubt.OPEN:
        row = load_without_receipt(connection, revocation)
        audit.record(
            connection,
            "revocation.asked",
            AsWhom(tenant=row.tenant_id),
            id=f"{revocation}.asked",
            at=now,
            outcome=verdict,
            reason=SAYS[verdict],
            detail={"revocation": revocation},
        )
