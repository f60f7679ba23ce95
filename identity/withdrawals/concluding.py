"""Records the outcome of asking: withdrawals become done, due again later, or stuck."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from sqlalchemy import Connection

from identity import audit
from identity.accounts.states import get_account
from identity.audit import AsWhom
from identity.metrics import WITHDRAWALS_ASKED
from identity.sql.store import Store
from identity.withdrawals.budget import WithdrawalBudget
from identity.withdrawals.end_request import Claimed
from identity.withdrawals.withdrawal import Counts, Origin, Withdrawal, WithdrawalState, claim, postpone, settle

log = logging.getLogger(__name__)

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class WithdrawalConcluder:
    """Records the outcomes of claimed withdrawals."""

    store: Store
    budget: WithdrawalBudget
    clock: Callable[[], datetime]
    ids: Callable[[], str]

    def end(self, cases: Sequence[Claimed], to: WithdrawalState, reason: str | None, *, lives: bool = False) -> None:
        """Settle withdrawals: nothing more is asked, unless an operator retries them.

        *lives*: the credential may still be valid at the provider, as is assumed of stuck ones.
        """
        now, reason = self.clock(), reason and reason[:300]
        stuck = to is WithdrawalState.STUCK
        leftovers: dict[str, Claimed] = {}  # these are on no receipt, so the audit records them
        others: list[str] = []
        for case in cases:
            if (stuck or lives) and case.withdrawal.origin is Origin.CONNECT:
                leftovers[self.ids()] = case
            else:
                others.append(case.withdrawal.id)

        def write(connection: Connection) -> None:
            if others:
                settle(connection, *others, to=to, reason=reason, now=now)
            for audit_id, case in leftovers.items():
                if not settle(connection, case.withdrawal.id, to=to, reason=reason, now=now):
                    continue
                audit.record(
                    connection,
                    "connect.not_ended",
                    AsWhom.of_account(case.account.key, id=case.account.id),
                    id=audit_id,
                    at=now,
                    outcome=to,
                    reason=reason,
                    detail={"connection": case.account.key.connection, "consented": case.withdrawal.consented},
                )

        self.store.write(write)
        WITHDRAWALS_ASKED.labels(str(to)).inc(len(cases))
        for case in cases if stuck or lives else ():
            leftover = case.withdrawal.origin is Origin.CONNECT
            what = "what a refused connect had won" if leftover else "a revoked credential"
            action = "connect.not_ended" if leftover else "withdrawal.stuck"
            where = {"action": action, "withdrawal": case.withdrawal.id, "account": case.account.id}
            level = logging.ERROR if stuck else logging.WARNING  # nobody need act on a withdrawal not asked
            log.log(level, "%s may still be valid at its provider: %s", what, reason, extra=where)

    def later(self, cases: Sequence[Claimed], why: str, *, wait: timedelta, counts: Counts = Counts.TRY) -> None:
        """Ask again after *wait*."""
        due = self.clock() + max(wait, _SECOND)
        which = [case.withdrawal.id for case in cases]
        self.store.write(lambda c: postpone(c, *which, due_at=due, reason=why[:300], counts=counts))
        WITHDRAWALS_ASKED.labels("later").inc(len(cases))

    def failed(self, cases: Sequence[Claimed], why: str, *, ends_at: datetime | None = None) -> None:
        """Ask again later, or mark as stuck. *ends_at*: when the credential expires by itself, if it does soon."""
        for tries, alike in groupby(sorted(cases, key=_tries), key=_tries):
            some = list(alike)
            if tries < self.budget.tries:
                self.later(some, why, wait=self.budget.pause(tries))
            elif ends_at is not None and (wait := ends_at - self.clock()) <= self.budget.outlasted:
                self.later(some, f"asked {tries} times, and it soon ends by itself: {why}", wait=wait)
            else:
                self.end(some, WithdrawalState.STUCK, f"asked {tries} times: {why}")

    def lacks_key(self, case: Claimed, why: str, *, due: datetime) -> None:
        """Postpone: only this host may lack the vault key, so another may ask, or this one once it has the key."""
        claimed = case.withdrawal
        leftover = claimed.origin is Origin.CONNECT  # tried for a day, once per pause
        patient = (claimed.keyless + 1) * self.budget.longest < self.budget.keyless
        if not (patient if leftover else claimed.tries < self.budget.tries):
            self.end([case], WithdrawalState.STUCK, why)
            return
        _say_set_aside(claimed, why)
        counts = Counts.KEYLESS if leftover else Counts.TRY
        self.store.write(lambda c: postpone(c, claimed.id, due_at=due, reason=why[:300], counts=counts))

    def unclaimed(self, withdrawal: str, why: str, *, now: datetime) -> None:
        """Postpone a withdrawal whose configuration cannot be read. Each time counts as a try until it is stuck."""
        due = now + self.budget.longest

        def write(connection: Connection) -> Claimed | None:
            if (claimed := claim(connection, withdrawal, now=now, until=due)) is None:
                return None
            postpone(connection, claimed.id, due_at=due, reason=why[:300])
            return Claimed(withdrawal=claimed, account=get_account(connection, claimed.account))

        if (found := self.store.write(write)) is None:
            return
        if found.withdrawal.tries < self.budget.tries:
            _say_set_aside(found.withdrawal, why)
        else:
            self.end([found], WithdrawalState.STUCK, why)


def _tries(case: Claimed) -> int:
    return case.withdrawal.tries


def _say_set_aside(claimed: Withdrawal, why: str) -> None:
    note = {"action": "withdrawal.set_aside", "withdrawal": claimed.id}
    log.error("a credential cannot be asked about: %s", why, extra=note)
