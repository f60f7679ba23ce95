"""The withdrawer asks providers to end revoked credentials, until each is done or visibly stuck.

    claim ─► request ─► answer ─► done, or due again later, or stuck

A claim outlasts its request, which must leave before `send` has passed: of two processes only one asks. Some providers
can only end everything a person ever granted. They are not asked while that would affect a later consent or another
person's account. If tokens are ended by name, one request names many.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from identity.connections.self_hosted import profile_for
from identity.crash_points import none_reached
from identity.errors import KeyMissing, Misconfigured, Unavailable
from identity.hold import last_release
from identity.http.client import Answer, HttpRequest, Outcome
from identity.http.request_names import REVOCATION_HEADER, named
from identity.keys.vault import Vault
from identity.oauth.answers import limits_rate
from identity.providers.profile import Profile, Renewal
from identity.sql.store import CommitUnknown, Store
from identity.token_endpoint.endpoint import TokenEndpoint
from identity.token_endpoint.gate import AHEAD_KEEPS, Endpoint
from identity.withdrawals.budget import WithdrawalBudget
from identity.withdrawals.claiming import claim_alike, claim_case
from identity.withdrawals.concluding import WithdrawalConcluder
from identity.withdrawals.end_request import ACCESS_OUTLIVES, LOST, Case, EndRequest, NamedTokens, Unasked, question
from identity.withdrawals.token_revocation import ACCESS, REFRESH, ends_none_such, refuses_token
from identity.withdrawals.withdrawal import Counts, WithdrawalState, note_ended

log = logging.getLogger(__name__)

_TOGETHER = 25  # claimed in one transaction, each under its own lock
_TOKENS = 2  # per withdrawal, at most


@dataclass(frozen=True, kw_only=True)
class WithdrawalTurn:
    """The result of asking about one withdrawal."""

    room: bool = True  # False: that endpoint has no room for more now
    also: frozenset[str] = field(default_factory=frozenset)  # other withdrawals asked about in the same request


class Withdrawer:
    """Asks providers to end credentials. `ask` is safe to repeat and to run concurrently."""

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
        self._ends = WithdrawalConcluder(store=store, budget=self._budget, clock=clock, ids=ids)
        self._reached = reached
        self._monotonic = monotonic

    def ask(self, withdrawal: str, others: Sequence[str] = ()) -> WithdrawalTurn:
        """Ask about a withdrawal if it is due, and in the same request about those of *others* that it can name."""
        began, now = self._monotonic(), self._clock()
        until = now + self._budget.send + 2 * self._endpoint.budget + self._budget.margin  # at most two requests
        try:
            case = self._store.write(lambda c: claim_case(c, withdrawal, self._profiles, now=now, until=until))
        except Misconfigured as fault:  # the claim was rolled back; left alone, it would be first again
            self._ends.unclaimed(withdrawal, str(fault), now=now)
            return WithdrawalTurn()
        asked = self._question(case, now) if case is not None else None
        if case is None or asked is None:
            return WithdrawalTurn()
        if asked.names is None:
            return WithdrawalTurn(room=self._send(case, asked, began=began))
        to = Endpoint.asked_by_nobody(asked.request.url)
        if (wait := self._endpoint.gate.look(to, asked.pace, keep=AHEAD_KEEPS)) is not None:
            return WithdrawalTurn(room=self._held_back([case], wait))
        also = self._claim_beside(case, asked.names, others, until=until, began=began)
        room = self._send_names([(case, asked), *also], asked.names.renewal, to, began=began)
        return WithdrawalTurn(room=room, also=frozenset(one.withdrawal.id for one, _ in also))

    def _claim_beside(
        self, case: Case, names: NamedTokens, others: Sequence[str], *, until: datetime, began: float
    ) -> list[tuple[Case, EndRequest]]:
        """Claim those of *others* that the request for *case* can name, within half of the time to send."""
        found: list[tuple[Case, EndRequest]] = []
        room, rest = names.room(tries=case.withdrawal.tries), list(others)
        by = began + self._budget.send.total_seconds() / 2
        while rest and room >= _TOKENS and self._monotonic() < by:
            together = min(_TOGETHER, room // _TOKENS)
            some, rest = rest[:together], rest[together:]
            now = self._clock()
            claiming = partial(claim_alike, others=some, first=case, profiles=self._profiles, now=now, until=until)
            try:
                claimed = self._store.write(claiming)
            except (Unavailable, CommitUnknown) as fault:
                # For example, one account is busy. Withdrawals claimed so far are still asked about; a claim whose
                # commit is unknown expires.
                log.info("no more are named in one request: %s", fault, extra={"action": "withdrawal.fewer_named"})
                break
            for other in claimed:
                asked = self._question(other, now)
                if asked is not None and asked.names is not None:
                    found.append((other, asked))
                    room -= len(asked.names.tokens)
        return found

    def _question(self, case: Case, now: datetime) -> EndRequest | None:
        """Return the request for *case*; None if there is none, or none now, which is recorded."""
        try:
            profile = profile_for(self._profiles, case.owner)
            asked = question(case, profile, self._vault, now=now, ids=self._ids)
        except KeyMissing as fault:
            self._ends.lacks_key(case, str(fault), due=now + self._budget.longest)
            return None
        except Misconfigured as fault:
            self._ends.end([case], WithdrawalState.STUCK, str(fault))
            return None
        if isinstance(asked, Unasked):
            self._ends.end([case], asked.to, asked.reason, lives=asked.lives)
            return None
        return asked

    def _send(self, case: Case, asked: EndRequest, *, began: float) -> bool:
        gate, remark = self._endpoint.gate, asked.remark
        to = Endpoint(connection=case.owner.id, url=asked.request.url)
        if (wait := gate.enter(to, asked.pace, keep=AHEAD_KEEPS)) is not None:
            return self._held_back([case], wait)
        send_before = began + self._budget.send.total_seconds()
        outcome = self._present(case, asked.request, to, send_before=send_before)
        fault = self._fault(case, asked, outcome, to)
        if asked.outlives and isinstance(outcome, Answer) and ends_none_such(outcome):
            fault, remark = None, ACCESS_OUTLIVES
        if fault is not None and (wait := self._told_to_wait(case, outcome)) is not None:
            return self._held_back([case], wait)
        renews = asked.then is not None and fault is not None
        if asked.then is not None and (fault is None or refuses_token(outcome)):
            wait = gate.enter(to, asked.pace, keep=AHEAD_KEEPS)
            if fault is None:
                self._store.write(lambda c: note_ended(c, case.withdrawal.id, REFRESH))
                if wait is not None:
                    return self._held_back([case], wait)
            # Only a pause stops it, not the pace: after a token that is refused each time, it would never get a turn.
            if wait is None or gate.paused(to) is None:
                send_before += self._endpoint.budget.total_seconds()
                outcome = self._present(case, asked.then, to, send_before=send_before)
                if isinstance(outcome, Answer) and ends_none_such(outcome):
                    remark = ACCESS_OUTLIVES
                elif (of_access := self._fault(case, asked, outcome, to)) is not None:
                    if fault is None and (wait := self._told_to_wait(case, outcome)) is not None:
                        return self._held_back([case], wait)
                    fault = fault or of_access
                elif fault is not None:
                    self._store.write(lambda c: note_ended(c, case.withdrawal.id, ACCESS))
        if fault is None:
            done = asked.tells(outcome)
            to_state, said = (WithdrawalState.DONE, remark) if done else (WithdrawalState.STUCK, LOST)
            self._ends.end([case], to_state, said)
        else:
            self._ends.failed([case], fault, ends_at=None if renews else asked.ends_at)
        return True

    def _send_names(
        self, listed: Sequence[tuple[Case, EndRequest]], renewal: Renewal, to: Endpoint, *, began: float
    ) -> bool:
        """Send one request that names all tokens. False if there is no room for more."""
        cases, (first, _) = [case for case, _ in listed], listed[0]
        tokens = [token for _, asked in listed if asked.names is not None for token in asked.names.tokens]
        # Entered only now that it can be sent: claiming others may take long, or fail.
        if (wait := self._endpoint.gate.enter(to, listed[0][1].pace, keep=AHEAD_KEEPS)) is not None:
            return self._held_back(cases, wait)
        send_before = began + self._budget.send.total_seconds()
        outcome = self._present(first, renewal.request(first.owner, tokens), to, send_before=send_before)
        fault = self._fault(first, listed[0][1], outcome, to)
        if fault is None:
            done, stuck = WithdrawalState.DONE, WithdrawalState.STUCK
            ends = [(case, (done, asked.remark) if asked.tells(outcome) else (stuck, LOST)) for case, asked in listed]
            for end in dict.fromkeys(end for _, end in ends):
                self._ends.end([case for case, of_it in ends if of_it == end], *end)
        elif (wait := self._told_to_wait(first, outcome)) is not None:
            return self._held_back(cases, wait)
        else:
            self._ends.failed(cases, fault)
        return True

    def _held_back(self, cases: Sequence[Case], wait: timedelta) -> bool:
        self._ends.later(cases, "requests to its provider are held back for now", wait=wait, counts=Counts.NOTHING)
        return False

    def _told_to_wait(self, case: Case, outcome: Outcome) -> timedelta | None:
        """Return the wait of a rate limit, which spends no try; None if there is none, or it has lasted a day.

        The day restarts when a hold is released, as nothing is asked during a hold.
        """
        now, which = self._clock(), case.withdrawal
        wait = limits_rate(outcome, now) if isinstance(outcome, Answer) else None
        if wait is None:
            return None
        released = self._store.read(lambda c: last_release(c, after=which.consented))
        since = max(which.created_at, released or which.created_at)
        return wait if now < since + self._budget.limited else None

    def _present(self, case: Case, request: HttpRequest, to: Endpoint, *, send_before: float) -> Outcome:
        request = named(request, REVOCATION_HEADER, case.withdrawal.revocation or case.withdrawal.id)
        self._reached("before_withdrawal_sent")
        outcome = self._endpoint.send(request, to=to, send_before=send_before)
        self._reached("after_withdrawal_sent")
        return outcome

    def _fault(self, case: Case, asked: EndRequest, outcome: Outcome, to: Endpoint) -> str | None:
        """Return why the token may still be valid; None if the answer confirms its end."""
        if not isinstance(outcome, Answer):
            return outcome.reason
        if asked.has_ended(outcome):
            return None
        if (wait := limits_rate(outcome, self._clock())) is not None:
            self._endpoint.gate.pause(to, wait)
        alive = self._is_alive(case, asked, outcome)
        if alive is False:
            return None
        still = "and still takes the credential" if alive else "which does not say that the credential has ended"
        return f"it answered {outcome.status}, {still}"

    def _is_alive(self, case: Case, asked: EndRequest, answer: Answer) -> bool | None:
        """Ask whether the credential is valid if *answer* is ambiguous; None if that is not known."""
        doubt = asked.doubt
        if doubt is None or answer.status not in doubt.statuses:
            return None
        to = Endpoint(connection=case.owner.id, url=doubt.request.url)
        if self._endpoint.gate.enter(to, asked.pace, keep=AHEAD_KEEPS) is not None:
            return None
        request = named(doubt.request, REVOCATION_HEADER, case.withdrawal.revocation or case.withdrawal.id)
        outcome = self._endpoint.send(request, to=to)
        return doubt.liveness.read(outcome) if isinstance(outcome, Answer) else None
