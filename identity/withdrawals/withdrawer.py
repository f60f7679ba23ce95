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
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from identity import audit
from identity.accounts import Account, get_account
from identity.answers import retry_after_of
from identity.audit import AsWhom
from identity.connection_secrets import ending_authenticator, live_secrets
from identity.connections import get_connection
from identity.crash_points import none_reached
from identity.errors import KeyMissing, Misconfigured
from identity.http import Answer, HttpRequest, Outcome
from identity.metrics import WITHDRAWALS_ASKED
from identity.own_values import profile_for
from identity.providers.profile import Profile
from identity.refresh.gate import AHEAD_KEEPS, Endpoint
from identity.request_names import REVOCATION_HEADER, named
from identity.sequence import lock_exclusive
from identity.store import Store
from identity.token_endpoint import TokenEndpoint
from identity.vault import Vault
from identity.withdrawals import (
    Counts,
    Origin,
    Withdrawal,
    WithdrawalState,
    claim,
    get_withdrawal,
    has_lost_answer,
    is_refreshing,
    is_superseded,
    note_ended,
    postpone,
    settle,
)
from identity.withdrawals.budget import WithdrawalBudget
from identity.withdrawals.end_request import (
    ACCESS_OUTLIVES,
    LOST,
    Case,
    Question,
    Unasked,
    is_renewal_alone,
    may_be_shared,
    question,
    reaches_all,
)
from identity.withdrawals.reach import awaited_link, reaches_others
from identity.withdrawals.token_revocation import ACCESS, REFRESH, ends_none_such, refuses_token

log = logging.getLogger(__name__)

_SECOND = timedelta(seconds=1)
_LINK = timedelta(seconds=30)  # until it is seen again whether one still works


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
        reached: Callable[[str], None] = none_reached,
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

    def ask(self, withdrawal: str) -> bool:
        """Ask about one withdrawal if it is due. False: where it is asked there is no room for more now."""
        began, now = self._monotonic(), self._clock()
        until = now + self._budget.send + 2 * self._endpoint.budget + self._budget.margin  # two requests at most
        try:
            case = self._store.write(lambda c: self._claim(c, withdrawal, now=now, until=until))
        except Misconfigured as fault:  # nothing of the claim was written, and it would be the first to be due again
            self._unclaimed(withdrawal, str(fault), now=now)
            return True
        if case is None:
            return True
        try:
            profile = profile_for(self._profiles, case.owner)
            asked = question(case, profile, self._vault, now=now, ids=self._ids)
        except KeyMissing as fault:  # perhaps of this host alone: another asks meanwhile, or this one once it is here
            self._lacks_key(case.withdrawal, case.account, str(fault), due=now + self._budget.longest)
            return True
        except Misconfigured as fault:
            self._end(case.withdrawal, case.account, WithdrawalState.STUCK, str(fault))
            return True
        if isinstance(asked, Unasked):
            self._end(case.withdrawal, case.account, asked.to, asked.reason)
            return True
        return self._send(case, asked, began=began)

    def _send(self, case: Case, asked: Question, *, began: float) -> bool:
        gate, remark = self._endpoint.gate, asked.remark
        to = Endpoint(connection=case.owner.id, url=asked.request.url)
        if (wait := gate.enter(to, asked.pace, keep=AHEAD_KEEPS)) is not None:
            return self._held_back(case, wait)
        send_before = began + self._budget.send.total_seconds()
        outcome = self._present(case, asked.request, to, send_before=send_before)
        fault = self._fault(case, asked, outcome, to)
        if asked.outlives and isinstance(outcome, Answer) and ends_none_such(outcome):
            fault, remark = None, ACCESS_OUTLIVES
        renews = asked.then is not None and fault is not None
        if asked.then is not None and (fault is None or refuses_token(outcome)):
            wait = gate.enter(to, asked.pace, keep=AHEAD_KEEPS)
            if fault is None:
                self._store.write(lambda c: note_ended(c, case.withdrawal.id, REFRESH))
                if wait is not None:
                    return self._held_back(case, wait)
            # Beside one that is refused each time, its turn would never come by the pace of one at a time.
            if wait is None or gate.paused(to) is None:
                send_before += self._endpoint.budget.total_seconds()
                outcome = self._present(case, asked.then, to, send_before=send_before)
                if isinstance(outcome, Answer) and ends_none_such(outcome):
                    remark = ACCESS_OUTLIVES
                elif (of_access := self._fault(case, asked, outcome, to)) is not None:
                    fault = fault or of_access
                elif fault is not None:
                    self._store.write(lambda c: note_ended(c, case.withdrawal.id, ACCESS))
        if fault is None:
            done = asked.tells(outcome)
            to_state, said = (WithdrawalState.DONE, remark) if done else (WithdrawalState.STUCK, LOST)
            self._end(case.withdrawal, case.account, to_state, said)
        else:
            self._failed(case, fault, ends_at=None if renews else asked.ends_at)
        return True

    def _held_back(self, case: Case, wait: timedelta) -> bool:
        self._later(case, "requests to its provider are held back for now", wait=wait, counts=Counts.NOTHING)
        return False

    def _present(self, case: Case, request: HttpRequest, to: Endpoint, *, send_before: float) -> Outcome:
        request = named(request, REVOCATION_HEADER, case.withdrawal.revocation or case.withdrawal.id)
        self._reached("before_withdrawal_sent")
        outcome = self._endpoint.send(request, to=to, send_before=send_before)
        self._reached("after_withdrawal_sent")
        return outcome

    def _fault(self, case: Case, asked: Question, outcome: Outcome, to: Endpoint) -> str | None:
        """Why the token may live; None: the answer says that it has ended."""
        if not isinstance(outcome, Answer):
            return outcome.reason
        if asked.has_ended(outcome):
            return None
        if outcome.status == 429:
            self._endpoint.gate.pause(to, retry_after_of(outcome, self._clock(), timedelta(minutes=1)))
        alive = self._is_alive(case, asked, outcome)
        if alive is False:
            return None
        still = "and still takes the credential" if alive else "which does not say that the credential has ended"
        return f"it answered {outcome.status}, {still}"

    def _is_alive(self, case: Case, asked: Question, answer: Answer) -> bool | None:
        """What the provider says of the credential, where *answer* has two meanings; None: nothing."""
        doubt = asked.doubt
        if doubt is None or answer.status not in doubt.statuses:
            return None
        to = Endpoint(connection=case.owner.id, url=doubt.request.url)
        if self._endpoint.gate.enter(to, asked.pace, keep=AHEAD_KEEPS) is not None:
            return None
        request = named(doubt.request, REVOCATION_HEADER, case.withdrawal.revocation or case.withdrawal.id)
        outcome = self._endpoint.send(request, to=to)
        return doubt.liveness.read(outcome) if isinstance(outcome, Answer) else None

    def _claim(self, connection: Connection, withdrawal: str, *, now: datetime, until: datetime) -> Case | None:
        """The withdrawal, ours to ask about; None: not now, or never."""
        found = get_withdrawal(connection, withdrawal)
        if found is None:
            return None
        account = get_account(connection, found.account)
        # In one statement with the reads, the snapshot would precede the wait for the lock.
        lock_exclusive(connection, account.key.scope)
        claimed = claim(connection, withdrawal, now=now, until=until)
        if claimed is None:
            return None
        if is_refreshing(connection, account.id):
            postpone(
                connection, claimed.id, due_at=now + _SECOND, reason="a refresh has not ended", counts=Counts.NOTHING
            )
            return None
        owner = get_connection(connection, account.key.connection)
        if claimed.client_id is not None:  # another is refused, or told that it has ended (RFC 7009 §2.1, §2.2)
            owner = replace(owner, client_id=claimed.client_id)
        profile = profile_for(self._profiles, owner)
        refused = claimed.origin is Origin.CONNECT
        by_name = profile.renewal is not None and (refused or is_renewal_alone(profile, claimed, now=now))
        reaches = not by_name and (reaches_all(profile, claimed.credential) or may_be_shared(claimed))
        if reaches and (why := reaches_others(connection, account, claimed, now=now)):
            to = WithdrawalState.NOT_ASKED if refused else WithdrawalState.STUCK
            settle(connection, claimed.id, to=to, reason=why, now=now)
            return None
        if reaches and awaited_link(connection, account, claimed, now=now) is not None:
            why = "somebody may be connecting, and asking would end that consent too"
            postpone(connection, claimed.id, due_at=now + _LINK, reason=why, counts=Counts.NOTHING)
            return None
        wanted = ending_authenticator(owner, claimed.credential)
        return Case(
            withdrawal=claimed,
            account=account,
            owner=owner,
            secrets=live_secrets(connection, owner.id, wanted) if wanted else (),
            superseded=is_superseded(connection, claimed),
            lost=has_lost_answer(connection, claimed),
        )

    def _unclaimed(self, withdrawal: str, why: str, *, now: datetime) -> None:
        """What is configured for it cannot be read. Each time is a try, so after the last it is seen to be stuck."""
        due = now + self._budget.longest

        def write(connection: Connection) -> tuple[Withdrawal, Account] | None:
            if (claimed := claim(connection, withdrawal, now=now, until=due)) is None:
                return None
            postpone(connection, claimed.id, due_at=due, reason=why[:300])
            return claimed, get_account(connection, claimed.account)

        if (found := self._store.write(write)) is None:
            return
        claimed, account = found
        if claimed.tries < self._budget.tries:
            self._say_set_aside(claimed, why)
        else:
            self._end(claimed, account, WithdrawalState.STUCK, why)

    def _lacks_key(self, claimed: Withdrawal, account: Account, why: str, *, due: datetime) -> None:
        """Nobody could have the end of what a refused connect had won asked again: a day of tries, one a pause."""
        leftover = claimed.origin is Origin.CONNECT
        patient = (claimed.keyless + 1) * self._budget.longest < self._budget.keyless
        if not (patient if leftover else claimed.tries < self._budget.tries):
            self._end(claimed, account, WithdrawalState.STUCK, why)
            return
        self._say_set_aside(claimed, why)
        counts = Counts.KEYLESS if leftover else Counts.TRY
        self._store.write(lambda c: postpone(c, claimed.id, due_at=due, reason=why[:300], counts=counts))

    def _say_set_aside(self, claimed: Withdrawal, why: str) -> None:
        note = {"action": "withdrawal.set_aside", "withdrawal": claimed.id}
        log.error("a credential cannot be asked about: %s", why, extra=note)

    def _failed(self, case: Case, why: str, *, ends_at: datetime | None) -> None:
        """Ask again later. *ends_at*: what is left of it ends by itself then, and nobody needs to act before."""
        claimed, tries, budget = case.withdrawal, case.withdrawal.tries, self._budget
        if tries < budget.tries:
            self._later(case, why, wait=budget.pause(tries))
        elif ends_at is not None and (wait := ends_at - self._clock()) <= budget.outlasted:
            self._later(case, f"asked {tries} times, and it soon ends by itself: {why}", wait=wait)
        else:
            self._end(claimed, case.account, WithdrawalState.STUCK, f"asked {tries} times: {why}")

    def _later(self, case: Case, why: str, *, wait: timedelta, counts: Counts = Counts.TRY) -> None:
        due = self._clock() + max(wait, _SECOND)
        self._store.write(lambda c: postpone(c, case.withdrawal.id, due_at=due, reason=why[:300], counts=counts))
        WITHDRAWALS_ASKED.labels("later").inc()

    def _end(self, claimed: Withdrawal, account: Account, to: WithdrawalState, reason: str | None) -> None:
        now, audit_id = self._clock(), self._ids()
        reason = reason and reason[:300]
        stuck = to is WithdrawalState.STUCK
        # It is on no receipt, by which an operator could have it asked again.
        given_up = stuck and claimed.origin is Origin.CONNECT
        ends = WithdrawalState.NOT_ASKED if given_up else to

        def write(connection: Connection) -> None:
            if settle(connection, claimed.id, to=ends, reason=reason, now=now) and given_up:
                audit.record(
                    connection,
                    "connect.not_ended",
                    AsWhom.of_account(account.key, id=account.id),
                    id=audit_id,
                    at=now,
                    reason=reason,
                    detail={"connection": account.key.connection, "consented": claimed.consented},
                )

        self._store.write(write)
        WITHDRAWALS_ASKED.labels(str(ends)).inc()
        if stuck:
            what = "what a refused connect had won" if given_up else "a revoked credential"
            action = "connect.not_ended" if given_up else "withdrawal.stuck"
            where = {"action": action, "withdrawal": claimed.id, "account": account.id}
            log.error("%s may still be valid at its provider: %s", what, reason, extra=where)
