"""Which credentials a revocation ends at their provider: they are taken from their accounts, a few at a time.

What is asked for, and what is not:

- the credentials of every account under the scope whose consent is older than the revocation, each by name;
- what a refresh won that ended after the revocation;
- the tokens that were minted beside the account's own, and still live;
- of a signal by which the provider says that tokens ended, only what a refresh won: the rest has, by its own word;
- after an organization took Slack's app from a workspace nothing: its token is that of its other workspaces too;
- after a replayed signal nothing: the provider still takes the authorization, and the person may connect again;
- of a signal of which nobody could find out whether it was one, everything: it may all be alive there.
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
from identity.model import ScopeKind
from identity.providers import PROFILES
from identity.refresh.tables import refresh_intents
from identity.sql.sequence import lock_exclusive
from identity.sql.store import Store
from identity.tables import accounts, grants
from identity.transmitters import is_of_connection
from identity.withdrawals import Origin, WithdrawalState, get_withdrawal, settle
from identity.withdrawals.held_tokens import alive, take_held
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.taking import EndedConsents, adopt, take_answers, take_grant
from pipeline.batches import in_batches
from pipeline.ledger.security_events import BY_TRANSMITTER
from pipeline.revocation import load_without_receipt, scope_of
from pipeline.revocation.due_withdrawals import KEPT, UNSAID, newest_before
from pipeline.revocation.inquiry import SAYS, SignalDoubt
from pipeline.revocation.preview import below
from pipeline.revocation.receipt import outdate
from pipeline.revocation.tables import revocations

_PAGE = 200  # accounts
_TOGETHER = 25  # accounts in one transaction: each has a lock
_HELD = or_(grants.c.access_sealed.is_not(None), grants.c.refresh_sealed.is_not(None))
#: The security events that say that tokens ended. One of a session or a password leaves those of a client alive.
_TOKENS_ENDED = frozenset({"oauth.tokens-revoked", "oauth.token-revoked"})
_ONE_WORKSPACE = "slack.team_access_revoked"


@dataclass(frozen=True, kw_only=True)
class NotAsked:
    """For which of a revocation's credentials the provider is not asked, and why."""

    reason: str
    origins: frozenset[Origin]


@dataclass(frozen=True, kw_only=True)
class Collector:
    """Takes what is to end. `collect` is safe to repeat, and to run in two processes at once."""

    store: Store
    clock: Callable[[], datetime]
    monotonic: Callable[[], float] = time.monotonic

    def collect(self, revocation: str, until: float) -> None:
        """Take what is to end, a few accounts a transaction. What there is no time for is taken the next time.

        Some are taken each time: to find them among very many may itself take that long.
        """
        if self.monotonic() >= until:
            return
        row = self.store.read(lambda c: load_without_receipt(c, revocation))
        if row.kind != ScopeKind.AGENT:  # an agent acts with credentials that others use too
            why = self.store.read(lambda c: _unasked(c, row))
            looks = [_has_something_late(row)]  # first: it may be in the last of very many accounts
            if row.collected_at is None:
                looks.append(_has_something(row, self.clock()))
            if not all(self._take_of(row, reached, why=why, until=until) for reached in looks):
                return
        if row.collected_at is None:
            self.store.write(partial(_collected, revocation=revocation, now=self.clock()))

    def _take_of(self, row: Row[Any], reached: ColumnElement[bool], *, why: NotAsked | None, until: float) -> bool:
        """Take what those accounts have. False: there was no time for all of them."""
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
    """None: the provider is asked for all credentials."""
    if row.doubt == SignalDoubt.ALIVE:
        return NotAsked(reason=SAYS[SignalDoubt.ALIVE], origins=frozenset(Origin))
    if row.doubt == SignalDoubt.UNKNOWN:
        return None
    if row.source == _ONE_WORKSPACE:
        reason = "the organization's token lives on for its other workspaces, and is no longer used here"
        return NotAsked(reason=reason, origins=frozenset(Origin))
    if row.signal_id is not None and _is_the_providers(connection, row):
        reason = "the provider itself said that it has ended"
        return NotAsked(reason=reason, origins=frozenset({Origin.GRANT, Origin.CONFINED}))
    return None


def _is_the_providers(connection: Connection, row: Row[Any]) -> bool:
    """Whether whom the credentials are of said that they have ended. A transmitter of the tenant's is another party."""
    if row.source.partition(".")[0] in PROFILES:
        return True
    if row.source not in _TOKENS_ENDED:
        return False
    # By who sent it: a `jti` alone is nobody's, since every transmitter numbers by itself.
    return is_of_connection(connection, row.requested_by.removeprefix(BY_TRANSMITTER))


def _accounts(connection: Connection, *, row: Row[Any], reached: ColumnElement[bool], after: str) -> list[str]:
    """The next accounts of which there is something to take."""
    found = select(accounts.c.id).where(below(scope_of(row)), accounts.c.id > after, reached)
    return list(connection.execute(found.order_by(accounts.c.id).limit(_PAGE)).scalars())


def _has_something(row: Row[Any], now: datetime) -> ColumnElement[bool]:
    """The accounts with something that no revocation has taken.

    What `_take` left there for good would be found by every pass, and collecting might never end.
    """
    held = exists().where(grants.c.account_id == accounts.c.id, grants.c.consented <= row.number, _HELD)
    won = exists().where(refresh_intents.c.account_id == accounts.c.id, refresh_intents.c.consented <= row.number, KEPT)
    columns = withdrawals.c
    # What nobody has said on whose receipt it is, and what is held and lives: both are of no revocation yet.
    unsaid = exists().where(
        columns.account_id == accounts.c.id,
        columns.revocation_id.is_(None),
        columns.consented <= row.number,
        columns.origin != Origin.CONNECT,
        or_(columns.state != WithdrawalState.HELD, alive(now)),
    )
    return or_(held, won, unsaid)


def _has_something_late(row: Row[Any]) -> ColumnElement[bool]:
    """The same, once all was taken: only a refresh or a mint that was under way can have brought more."""
    won = select(refresh_intents.c.account_id).where(KEPT, refresh_intents.c.consented <= row.number)
    unsaid = select(withdrawals.c.account_id).where(UNSAID, withdrawals.c.consented <= row.number)
    return accounts.c.id.in_(won.union(unsaid))


def _take(connection: Connection, *, row: Row[Any], ids: Sequence[str], why: NotAsked | None, now: datetime) -> None:
    """Take the credentials of some accounts, under the locks that consents take, in the order of the accounts' keys."""
    some = sorted((get_account(connection, id) for id in ids), key=lambda account: str(account.key))
    for account in some:
        lock_exclusive(connection, account.key.scope)
    found = False
    for account in some:
        # Where we do not ask, leave what an earlier revocation ended to that one: it may not have collected it yet.
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
    if found and row.collected_at is not None:  # until then, that not all was taken is an open end of its receipt
        outdate(connection, [row.id])


def _collected(connection: Connection, *, revocation: str, now: datetime) -> None:
    connection.execute(update(revocations).where(revocations.c.id == revocation).values(collected_at=now))
