"""The provider's side of a revocation: the revoked credentials end there too, and the receipt says how far that is.

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
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, exists, or_, select, update

from identity.accounts import get_account
from identity.failures import Failures
from identity.hold import find_hold
from identity.model import ScopeKind
from identity.providers import PROFILES
from identity.refresh.tables import refresh_intents
from identity.sequence import lock_exclusive
from identity.store import Store
from identity.tables import accounts, grants
from identity.transmitters import is_of_connection
from identity.withdrawals import Origin, WithdrawalState, get_withdrawal, settle
from identity.withdrawals.held_tokens import alive, take_held
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.taking import EndedConsents, adopt, take_answers, take_grant
from identity.withdrawals.withdrawer import Turn
from pipeline.batches import in_batches
from pipeline.ledger.security_events import BY_TRANSMITTER
from pipeline.revocation import load_without_receipt, scope_of
from pipeline.revocation.due_withdrawals import (
    KEPT,
    UNSAID,
    Due,
    Line,
    due_of,
    is_pending,
    late,
    newest_before,
    overdue,
    uncollected,
)
from pipeline.revocation.inquiry import SAYS, SignalDoubt
from pipeline.revocation.preview import below
from pipeline.revocation.receipt import ProviderAnswer, ProviderSide, outdate
from pipeline.revocation.tables import revocations

_PAGE = 200  # accounts
_LOOK = 1000  # withdrawals: as many as GitHub lets one request name
_TOGETHER = 25  # accounts in one transaction: each has a lock
_HELD = or_(grants.c.access_sealed.is_not(None), grants.c.refresh_sealed.is_not(None))
#: The security events that say that tokens ended. One of a session or a password leaves those of a client alive.
_TOKENS_ENDED = frozenset({"oauth.tokens-revoked", "oauth.token-revoked"})
_TOLD = tuple(
    withdrawals.c[name] for name in ("account_id", "generation", "origin", "state", "reason", "finished_at")
)  # on the receipt: not the ciphertext
_ONE_WORKSPACE = "slack.team_access_revoked"


@dataclass(frozen=True, kw_only=True)
class NotAsked:
    """For which of a revocation's credentials the provider is not asked, and why."""

    reason: str
    origins: frozenset[Origin]


class ProviderAsker:
    """Takes what is to end and has it asked for. `advance` is safe to repeat, and to run in two processes at once."""

    def __init__(
        self,
        store: Store,
        ask: Callable[[str, Sequence[str]], Turn],
        *,
        clock: Callable[[], datetime],
        within: timedelta = timedelta(seconds=5),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._ask = ask  # about one, and those of others in its line that the same request can name
        self._clock = clock
        self._within = within.total_seconds()  # no request begins after it: others have their turn, and then the rest
        self._monotonic = monotonic

    def advance(self, revocation: str) -> bool:
        """Ask for all that is due of a revocation, and again for what a refresh that ended meanwhile has won.

        False: something of it is still pending. After half of the time no more are taken than a transaction takes, so
        that a scope of very many accounts is asked about meanwhile.
        """
        until = self._monotonic() + self._within / 2
        self._ask_all(revocation, before=lambda: self._collect(revocation, until))
        return not self._store.read(lambda c: is_pending(c, revocation))

    def due(self, *, limit: int = 100) -> list[str]:
        """The revocations of which something is to be asked now, for housekeeping. O(pending)."""
        now = self._clock()
        found = self._store.read(lambda c: [*late(c, limit), *overdue(c, now, limit), *uncollected(c, limit)])
        return list(dict.fromkeys(found))

    def ask_leftovers(self) -> None:
        """Ask about what refused connects had won, which is of no revocation. For housekeeping, O(pending)."""
        self._ask_all(None, before=lambda: None)

    def _ask_all(self, revocation: str | None, *, before: Callable[[], None]) -> None:
        """Ask about each that is due, once, until the time is over, and whatever becomes of the others.

        Where a provider has no room for one, the others of its line stay as they are: to claim each of them, only to
        put it off, would take all the time that those in other lines have.
        """
        end = self._monotonic() + self._within
        asked: set[str] = set()
        full: set[Line] = set()
        failures = Failures()
        with failures.told("credentials that could not be taken or asked about"):
            while True:
                try:
                    before()
                except Exception as failure:  # noqa: BLE001 - told at the end: what was taken is asked about meanwhile
                    failures.add("revocation", str(revocation), failure)
                look = partial(
                    _due_unless_held, revocation=revocation, now=self._clock(), besides=full, limit=_LOOK + len(asked)
                )
                fresh = [one for one in self._store.read(look) if one.id not in asked]
                for one in fresh:
                    if self._monotonic() >= end:
                        break
                    if one.line in full:
                        continue
                    if one.id in asked:
                        continue
                    asked.add(one.id)
                    others = [other.id for other in fresh if other.line == one.line and other.id not in asked]
                    try:
                        turn = self._ask(one.id, others)
                        asked |= turn.also
                        if not turn.room:
                            full.add(one.line)
                    except Exception as failure:  # noqa: BLE001 - told at the end, after the rest
                        failures.add("withdrawal", one.id, failure)
                if not fresh or self._monotonic() >= end:
                    break

    def _collect(self, revocation: str, until: float) -> None:
        """Take what is to end, a few accounts a transaction. What there is no time for is taken the next time.

        Some are taken each time: to find them among very many may itself take that long.
        """
        if self._monotonic() >= until:
            return
        row = self._store.read(lambda c: load_without_receipt(c, revocation))
        if row.kind != ScopeKind.AGENT:  # an agent acts with credentials that others use too
            why = self._store.read(lambda c: _unasked(c, row))
            looks = [_has_something_late(row)]  # first: it may be in the last of very many accounts
            if row.collected_at is None:
                looks.append(_has_something(row, self._clock()))
            if not all(self._take_of(row, reached, why=why, until=until) for reached in looks):
                return
        if row.collected_at is None:
            self._store.write(partial(_collected, revocation=revocation, now=self._clock()))

    def _take_of(self, row: Row[Any], reached: ColumnElement[bool], *, why: NotAsked | None, until: float) -> bool:
        """Take what those accounts have. False: there was no time for all of them."""
        look = partial(_accounts, row=row, reached=reached)
        after = ""
        while page := self._store.read(partial(look, after=after)):
            for some in in_batches(page, _TOGETHER):
                self._store.write(partial(_take, row=row, ids=some, why=why, now=self._clock()))
                if self._monotonic() >= until:
                    return False
            after = page[-1]
        return True


def _due_unless_held(connection: Connection, **which: Any) -> Sequence[Due]:
    """Nothing while the installation is held: each would be claimed in vain, under its account's lock."""
    return [] if find_hold(connection) is not None else due_of(connection, **which)


def provider_side(connection: Connection, revocation: str) -> ProviderSide:
    """What the receipt says of it."""
    columns = withdrawals.c
    of_it = select(*_TOLD).where(columns.revocation_id == revocation)
    rows = connection.execute(of_it.order_by(columns.account_id, columns.id)).all()
    states = {row.state for row in rows}
    if is_pending(connection, revocation):
        states.add(WithdrawalState.PENDING)  # also while accounts of its scope are still to be taken
    ranked = (ProviderAnswer.PENDING, ProviderAnswer.STUCK, ProviderAnswer.GIVEN_UP, ProviderAnswer.DONE)
    answer = next((one for one in ranked if one in states), ProviderAnswer.NOT_ASKED)
    return ProviderSide(answer=answer, accounts=tuple(_withdrawal_document(row) for row in rows))


def _withdrawal_document(row: Row[Any]) -> dict[str, Any]:
    """One credential. While it is pending, only that: each try would be another receipt."""
    return {
        "account": row.account_id,
        "generation": row.generation,
        "of": row.origin,
        "answer": row.state,
        "answered_at": row.finished_at.isoformat() if row.finished_at and row.state == WithdrawalState.DONE else None,
        "reason": None if row.state == WithdrawalState.PENDING else row.reason,
    }


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
