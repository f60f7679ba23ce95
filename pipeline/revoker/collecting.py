"""Collecting the credentials that a revocation ends at their provider, a few accounts at a time.

Asked for:

- the credentials of every account under the scope whose consent is older than the revocation, each by name;
- tokens won by a refresh that ended after the revocation;
- live tokens minted besides the account's own.

After a signal:

- if the provider itself said that the tokens ended: only what a refresh won;
- if it said so of one workspace, and the tenant has several: everything, as a token may belong to another;
- if an organization removed Slack's app from one workspace: nothing, as its token also serves its other workspaces;
- if the signal was a replay: nothing, as the provider still accepts the authorization and the person may connect again;
- if nobody could find out whether it was a replay: everything, as it may all be alive there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, exists, or_, select, update

from identity.accounts.states import get_account
from identity.connections.installations import may_be_elsewhere
from identity.model import AccountKey, ScopeKind
from identity.providers import PROFILES
from identity.refresh.tables import refresh_intents
from identity.sql.sequence import lock_exclusive
from identity.sql.store import Store
from identity.tables import accounts, grants
from identity.transmitters import is_of_connection
from identity.withdrawals.held_tokens import alive, take_held
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.taking import EndedConsents, adopt, take_answers, take_grant
from identity.withdrawals.withdrawal import Origin, WithdrawalState, get_withdrawal, settle
from pipeline.batches import in_batches
from pipeline.revocation.declaration import load_without_receipt, scope_of
from pipeline.revocation.receipt import outdate
from pipeline.revocation.security_events import BY_TRANSMITTER
from pipeline.revocation.tables import revocations
from pipeline.revoker.due_withdrawals import KEPT, UNSAID, newest_before
from pipeline.revoker.inquiry import SAYS, SignalDoubt
from pipeline.revoker.preview import below

_PAGE = 200  # accounts
_TOGETHER = 25  # accounts in one transaction, since each has a lock
_HELD = or_(grants.c.access_sealed.is_not(None), grants.c.refresh_sealed.is_not(None))
#: Security events that say that tokens ended. One about a session or a password leaves a client's tokens alive.
_TOKENS_ENDED = frozenset({"oauth.tokens-revoked", "oauth.token-revoked"})
_ONE_WORKSPACE = "slack.team_access_revoked"
#: Signals that end the tokens of the workspace they name, and not those of a tenant's other workspaces.
_OF_WORKSPACE = frozenset({"slack.app_uninstalled", "slack.tokens_revoked", "linear.OAuthApp"})


@dataclass(frozen=True, kw_only=True)
class NotAsked:
    """The credentials for which the provider is not asked, and why."""

    reason: str
    origins: frozenset[Origin]


@dataclass(frozen=True, kw_only=True)
class Collector:
    """Takes the credentials that must end. `collect` is safe to repeat, and to run in two processes at once."""

    store: Store
    clock: Callable[[], datetime]
    monotonic: Callable[[], float] = time.monotonic

    def collect(self, revocation: str, until: float) -> None:
        """Take credentials, a few accounts per transaction. Accounts there is no time for are taken next time.

        Each call takes some: finding them among very many may itself use up the time.
        """
        if self.monotonic() >= until:
            return
        row = self.store.read(lambda c: load_without_receipt(c, revocation))
        if row.kind != ScopeKind.AGENT:  # an agent acts with credentials that others use as well
            why = self.store.read(lambda c: _unasked(c, row))
            looks = [_has_something_late(row)]  # first, since it may be in the last of very many accounts
            if row.collected_at is None:
                looks.append(_has_something(row, self.clock()))
            if not all(self._take_of(row, reached, why=why, until=until) for reached in looks):
                return
        if row.collected_at is None:
            self.store.write(partial(_collected, revocation=revocation, now=self.clock()))

    def _take_of(self, row: Row[Any], reached: ColumnElement[bool], *, why: NotAsked | None, until: float) -> bool:
        """Take the credentials of these accounts. False: there was no time for all of them."""
        look = partial(_accounts, row=row, reached=reached)
        after = ""
        while page := self.store.read(partial(look, after=after)):
            for some in in_batches(page, _TOGETHER):
                self.store.write(partial(_take, row=row, ids=some, why=why, now=self.clock()))
                if self.monotonic() >= until:
                    return False
            after = page[-1]
        return True


def _unasked(connection: Connection, row: Row[Any]) -> NotAsked | None:
    """Return the credentials not to ask the provider about. None: ask about all."""
    if row.doubt == SignalDoubt.ALIVE:
        return NotAsked(reason=SAYS[SignalDoubt.ALIVE], origins=frozenset(Origin))
    if row.doubt == SignalDoubt.UNKNOWN:
        return None
    if row.source == _ONE_WORKSPACE:
        reason = "the organization's token lives on for its other workspaces, and is no longer used here"
        return NotAsked(reason=reason, origins=frozenset(Origin))
    if row.source in _OF_WORKSPACE and may_be_elsewhere(connection, AccountKey.parse(row.key)):
        return None
    if row.signal_id is not None and _is_the_providers(connection, row):
        reason = "the provider itself said that it has ended"
        return NotAsked(reason=reason, origins=frozenset({Origin.GRANT, Origin.CONFINED}))
    return None


def _is_the_providers(connection: Connection, row: Row[Any]) -> bool:
    """True if the issuer of the credentials said that they ended. A tenant's own transmitter is a different party."""
    if row.source.partition(".")[0] in PROFILES:
        return True
    if row.source not in _TOKENS_ENDED:
        return False
    # Compared by sender: a `jti` alone identifies nothing, as every transmitter has its own numbering.
    return is_of_connection(connection, row.requested_by.removeprefix(BY_TRANSMITTER))


def _accounts(connection: Connection, *, row: Row[Any], reached: ColumnElement[bool], after: str) -> list[str]:
    """Return the next accounts that have something to take."""
    found = select(accounts.c.id).where(below(scope_of(row)), accounts.c.id > after, reached)
    return list(connection.execute(found.order_by(accounts.c.id).limit(_PAGE)).scalars())


def _has_something(row: Row[Any], now: datetime) -> ColumnElement[bool]:
    """Match accounts with a credential that no revocation has taken.

    It must not match what `_take` leaves there for good, or every pass would find that and collecting might never end.
    """
    held = exists().where(grants.c.account_id == accounts.c.id, grants.c.consented <= row.number, _HELD)
    won = exists().where(refresh_intents.c.account_id == accounts.c.id, refresh_intents.c.consented <= row.number, KEPT)
    columns = withdrawals.c
    # Assigned to no revocation yet: withdrawals on no receipt, and held credentials that are alive.
    unsaid = exists().where(
        columns.account_id == accounts.c.id,
        columns.revocation_id.is_(None),
        columns.consented <= row.number,
        columns.origin != Origin.CONNECT,
        or_(columns.state != WithdrawalState.HELD, alive(now)),
    )
    return or_(held, won, unsaid)


def _has_something_late(row: Row[Any]) -> ColumnElement[bool]:
    """Match accounts with late credentials, which only a refresh or mint in progress can have brought."""
    won = select(refresh_intents.c.account_id).where(KEPT, refresh_intents.c.consented <= row.number)
    unsaid = select(withdrawals.c.account_id).where(UNSAID, withdrawals.c.consented <= row.number)
    return accounts.c.id.in_(won.union(unsaid))


def _take(connection: Connection, *, row: Row[Any], ids: Sequence[str], why: NotAsked | None, now: datetime) -> None:
    """Take the credentials of some accounts under the locks of consents, in the order of the accounts' keys."""
    some = sorted((get_account(connection, id) for id in ids), key=lambda account: str(account.key))
    for account in some:
        lock_exclusive(connection, account.key.scope)
    found = False
    for account in some:
        # If we do not ask, leave what an earlier revocation ended to that revocation, which may not have collected it
        # yet.
        since = 0 if why is None else newest_before(connection, account.key, row.number)
        ended = EndedConsents(after=since, upto=row.number)
        taken = take_grant(connection, account, ended, revocation=row.id, now=now)
        won = take_answers(connection, account, ended, revocation=row.id, now=now)
        held = take_held(connection, account, ended, revocation=row.id, now=now)
        kept = adopt(connection, account.id, ended, revocation=row.id)
        for withdrawal in filter(None, [taken, *won, *held, *kept]):
            found = True
            if why is None:
                continue
            one = get_withdrawal(connection, withdrawal)
            if one is not None and one.origin in why.origins:
                settle(connection, withdrawal, to=WithdrawalState.NOT_ASKED, reason=why.reason, now=now)
    # before that, incomplete collection is an open end of the receipt anyway
    if found and row.collected_at is not None:
        outdate(connection, [row.id])


def _collected(connection: Connection, *, revocation: str, now: datetime) -> None:
    connection.execute(update(revocations).where(revocations.c.id == revocation).values(collected_at=now))
