"""The withdrawer asks providers to end what was revoked here, one withdrawal at a time, until done or visibly stuck.

    claim ─► request ─► answer ─► done, or due again later, or stuck

A claim holds the withdrawal longer than its request may take, and the request leaves before `send` has passed, so of
two processes one asks. A provider that can only be asked for all a person ever granted is not asked while that would
reach a later consent, or somebody else's account.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, select

from identity import audit
from identity.accounts import Account, get_account
from identity.answers import retry_after_of
from identity.connect.sessions import is_connecting
from identity.connection_secrets import ending_authenticator, live_secrets
from identity.connections import get_connection
from identity.errors import KeyMissing, Misconfigured
from identity.grants import get_grant
from identity.http import Answer
from identity.metrics import WITHDRAWALS_ASKED
from identity.model import AccountKey, Credential, Scope, ScopeKind
from identity.own_values import profile_for
from identity.providers.profile import Profile
from identity.refresh.gate import AHEAD_KEEPS, Endpoint
from identity.request_names import REVOCATION_HEADER, named
from identity.scopes import grant_scopes, newest_revocation, revoked_since
from identity.sequence import lock_exclusive
from identity.store import Store
from identity.tables import accounts
from identity.token_endpoint import TokenEndpoint
from identity.vault import Vault
from identity.withdrawals import (
    Origin,
    Withdrawal,
    WithdrawalState,
    claim,
    get_withdrawal,
    is_refreshing,
    is_superseded,
    of_account,
    postpone,
    settle,
)
from identity.withdrawals.end_request import (
    Case,
    Question,
    Unasked,
    may_be_shared,
    question,
    reaches_all,
    renews_expired,
)

log = logging.getLogger(__name__)

_SECOND = timedelta(seconds=1)
_UNDER_WAY = timedelta(minutes=2)  # longer than a claim lasts


@dataclass(frozen=True, kw_only=True)
class WithdrawalBudget:
    """How long and how often a provider is asked to end a credential."""

    send: timedelta = timedelta(seconds=5)  # from the claim to the first byte
    tries: int = 12
    first: timedelta = timedelta(seconds=2)  # after the first try; each pause lasts twice as long as the one before
    longest: timedelta = timedelta(minutes=5)
    margin: timedelta = timedelta(seconds=30)  # a claim outlives its request by so much

    def pause(self, tries: int) -> timedelta:
        """Until the try after that many."""
        return min(self.first * (1 << min(tries - 1, 20)), self.longest)


class Withdrawer:
    """Asks providers. `ask` is safe to repeat, and to run in two processes at once."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        endpoint: TokenEndpoint,
        profiles: Mapping[str, Profile],
        *,
        clock: Callable[[], datetime],
        ids: Callable[[], str],
        budget: WithdrawalBudget | None = None,
        reached: Callable[[str], None] = lambda point: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._vault = vault
        self._endpoint = endpoint
        self._profiles = profiles
        self._clock = clock
        self._ids = ids
        self._budget = budget or WithdrawalBudget()
        self._reached = reached
        self._monotonic = monotonic

    def ask(self, withdrawal: str) -> None:
        """Ask about one withdrawal if it is due."""
        began, now = self._monotonic(), self._clock()
        until = now + self._budget.send + self._endpoint.budget + self._budget.margin
        try:
            case = self._store.write(lambda c: self._claim(c, withdrawal, now=now, until=until))
        except Misconfigured as fault:  # nothing of the claim was written, and it would be the first to be due again
            self._set_aside(withdrawal, str(fault), due=now + self._budget.longest)
            return
        if case is None:
            return
        try:
            profile = profile_for(self._profiles, case.owner)
            asked = question(case, profile, self._vault, now=now, ids=self._ids)
        except KeyMissing as fault:  # perhaps of this host alone: another asks meanwhile, or this one once it is here
            leftover = case.withdrawal.origin is Origin.CONNECT  # nobody could have one asked again that was given up
            if leftover or case.withdrawal.tries < self._budget.tries:
                self._set_aside(withdrawal, str(fault), due=now + self._budget.longest, counted=not leftover)
            else:
                self._end(case, WithdrawalState.STUCK, str(fault))
            return
        except Misconfigured as fault:
            self._end(case, WithdrawalState.STUCK, str(fault))
            return
        if isinstance(asked, Unasked):
            self._end(case, asked.to, asked.reason)
            return
        self._send(case, asked, began=began)

    def _send(self, case: Case, asked: Question, *, began: float) -> None:
        request, gate = asked.request, self._endpoint.gate
        to = Endpoint(connection=case.owner.id, url=request.url)
        if (wait := gate.enter(to, asked.pace, keep=AHEAD_KEEPS)) is not None:
            self._later(case, "its provider is left alone for now", wait=wait, counted=False)
            return
        request = named(request, REVOCATION_HEADER, case.withdrawal.revocation or case.withdrawal.id)
        self._reached("before_withdrawal_sent")
        send_before = began + self._budget.send.total_seconds()
        outcome = self._endpoint.send(request, to=to, send_before=send_before)
        self._reached("after_withdrawal_sent")
        if not isinstance(outcome, Answer):
            self._failed(case, outcome.reason)
        elif asked.has_ended(outcome):
            self._end(case, WithdrawalState.DONE, asked.remark)
        else:
            if outcome.status == 429:
                gate.hold(to, retry_after_of(outcome, self._clock(), timedelta(minutes=1)))
            self._failed(case, f"it answered {outcome.status}, which does not say that the credential has ended")

    def _claim(self, connection: Connection, withdrawal: str, *, now: datetime, until: datetime) -> Case | None:
        """The withdrawal, ours to ask about; None: not now, or never."""
        found = get_withdrawal(connection, withdrawal)
        if found is None:
            return None
        account = get_account(connection, found.account)
        # In one statement with the reads, the snapshot would precede the wait for the lock.
        lock_exclusive(connection, Scope(kind=ScopeKind.ACCOUNT, key=str(account.key)))
        claimed = claim(connection, withdrawal, now=now, until=until)
        if claimed is None:
            return None
        if is_refreshing(connection, account.id):
            postpone(connection, claimed.id, due_at=now + _SECOND, reason="a refresh has not ended", counted=False)
            return None
        owner = get_connection(connection, account.key.connection)
        profile = profile_for(self._profiles, owner)
        refused = claimed.origin is Origin.CONNECT
        by_name = profile.renewal is not None and (refused or renews_expired(profile, claimed, now=now))
        reaches = not by_name and (reaches_all(profile, claimed.credential) or may_be_shared(claimed))
        if reaches and (why := _reaches_others(connection, account, claimed, now=now)):
            to = WithdrawalState.NOT_ASKED if refused else WithdrawalState.STUCK
            settle(connection, claimed.id, to=to, reason=why, now=now)
            return None
        wanted = ending_authenticator(owner, claimed.credential)
        return Case(
            withdrawal=claimed,
            account=account,
            owner=owner,
            secrets=live_secrets(connection, owner.id, wanted) if wanted else (),
            superseded=is_superseded(connection, claimed),
        )

    def _set_aside(self, withdrawal: str, why: str, *, due: datetime, counted: bool = True) -> None:
        note = {"action": "withdrawal.set_aside", "withdrawal": withdrawal}
        log.error("a credential cannot be asked about: %s", why, extra=note)
        self._store.write(lambda c: postpone(c, withdrawal, due_at=due, reason=why[:300], counted=counted))

    def _failed(self, case: Case, why: str) -> None:
        tries = case.withdrawal.tries
        if tries >= self._budget.tries:
            self._end(case, WithdrawalState.STUCK, f"asked {tries} times: {why}")
        else:
            self._later(case, why, wait=self._budget.pause(tries))

    def _later(self, case: Case, why: str, *, wait: timedelta, counted: bool = True) -> None:
        due = self._clock() + max(wait, _SECOND)
        WITHDRAWALS_ASKED.labels("later").inc()
        self._store.write(lambda c: postpone(c, case.withdrawal.id, due_at=due, reason=why[:300], counted=counted))

    def _end(self, case: Case, to: WithdrawalState, reason: str | None) -> None:
        now, account, audit_id = self._clock(), case.account, self._ids()
        reason = reason and reason[:300]
        stuck = to is WithdrawalState.STUCK
        # It is on no receipt, by which an operator could have it asked again.
        given_up = stuck and case.withdrawal.origin is Origin.CONNECT
        ends = WithdrawalState.NOT_ASKED if given_up else to

        def write(connection: Connection) -> None:
            if settle(connection, case.withdrawal.id, to=ends, reason=reason, now=now) and given_up:
                audit.record(
                    connection,
                    id=audit_id,
                    at=now,
                    kind="connect.not_ended",
                    tenant=account.key.tenant,
                    principal=account.key.principal,
                    account=account.id,
                    reason=reason,
                    detail={"connection": account.key.connection, "consented": case.withdrawal.consented},
                )

        WITHDRAWALS_ASKED.labels(str(ends)).inc()
        self._store.write(write)
        if stuck:
            what = "what a refused connect had won" if given_up else "a revoked credential"
            action = "connect.not_ended" if given_up else "withdrawal.stuck"
            where = {"action": action, "withdrawal": case.withdrawal.id, "account": account.id}
            log.error("%s may still be valid at its provider: %s", what, reason, extra=where)


def awaits_provider(connection: Connection, account: Account, profile: Profile, *, now: datetime) -> bool:
    """Whether a consent of now would be ended at the provider by a revocation of before. The caller holds its locks."""
    if not reaches_all(profile, account.credential):
        return False
    # What is ended by its own name reaches no consent; a request by another that was claimed before may be under way.
    since = now - _UNDER_WAY

    def by_name(expires_at: datetime | None, refresh_sealed: bytes | None) -> bool:
        expired = expires_at is not None and expires_at <= since
        return profile.renewal is not None and refresh_sealed is not None and expired

    pending = of_account(connection, account.id, WithdrawalState.PENDING)
    won = [one for one in pending if one.origin is Origin.CONNECT]
    if profile.renewal is None and not all(_is_anothers(account, one) for one in won):
        return True
    if any(not by_name(one.expires_at, one.refresh_sealed) for one in pending if one not in won):
        return True
    grant = get_grant(connection, account.id)
    if grant is None or not revoked_since(connection, grant_scopes(account.key), grant.consented, or_stopped=False):
        return False
    held = grant.access_sealed is not None or grant.refresh_sealed is not None
    return is_refreshing(connection, account.id) or (held and not by_name(grant.expires_at, grant.refresh_sealed))


def _is_anothers(account: Account, one: Withdrawal) -> bool:
    """Whether a connect won it from somebody who is not the person of the account."""
    return one.external_id is not None and account.external_id not in (None, one.external_id)


def _reaches_others(connection: Connection, account: Account, claimed: Withdrawal, *, now: datetime) -> str | None:
    """Whom the request would reach besides, in words; None: nobody."""
    newest = newest_revocation(connection, grant_scopes(account.key))
    # The session that won this is over, also where nothing but its tokens was noted.
    own = claimed.consented if claimed.origin is Origin.CONNECT else None
    if not _is_anothers(account, claimed) and is_connecting(
        connection, account.key, now=now, after=newest, besides=own
    ):
        return "the person is connecting anew, and asking would end that consent too"
    persons: ColumnElement[bool] = (accounts.c.id == account.id) | (accounts.c.external_id == account.external_id)
    if claimed.origin is Origin.CONNECT:
        if claimed.external_id is None:
            return "whose it is was not said, and asking may end somebody else's too"
        persons = accounts.c.external_id == claimed.external_id
    same = select(accounts).where(
        accounts.c.connection_id == account.key.connection,
        accounts.c.credential == Credential.AUTHORIZATION_CODE,
        persons,
    )
    for row in connection.execute(same).all():
        grant = get_grant(connection, row.id)
        if grant is None or (grant.access_sealed is None and grant.refresh_sealed is None):
            continue
        key = AccountKey(tenant=row.tenant_id, connection=row.connection_id, principal=row.principal_id)
        if revoked_since(connection, grant_scopes(key), grant.consented, or_stopped=False) is None:
            if row.id == account.id:
                return "asking would end a later consent too"
            # A tenant reads it on its receipt, so what another tenant has is not named.
            name = f"account {row.id}" if row.tenant_id == account.key.tenant else "another account"
            return f"asking would end {name}, of the same person there, too"
    return None
