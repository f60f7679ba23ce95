"""One presentation of an account's credential to its token endpoint, from the intent to the stored answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from identity.connections.self_hosted import profile_for
from identity.errors import GrantRevoked, Unavailable
from identity.http.client import Answer
from identity.http.request_names import REFRESH_HEADER, named
from identity.model import RuledOut
from identity.refresh.conclusion import Concluder
from identity.refresh.endings import Superseded
from identity.refresh.intents import IntentState, RefreshIntent, store_answer
from identity.refresh.opening import begin
from identity.refresh.parts import RefreshParts
from identity.refresh.requests import token_request
from identity.refresh.situation import Situation
from identity.refresh.writer import RefreshWriter
from identity.sql.store import CommitUnknown
from identity.token_endpoint.endpoint import pack
from identity.token_endpoint.gate import AHEAD_KEEPS, HELD_BACK
from identity.token_endpoint.line import Waiter


@dataclass(frozen=True, kw_only=True)
class Presenter:
    """Presents credentials and hands the outcome to the concluder."""

    parts: RefreshParts
    writer: RefreshWriter
    concluder: Concluder

    def present(self, situation: Situation, *, keep: float, renew: Callable[[], bool]) -> int | None:
        """Present the credential once; return the new generation, or None if the caller must read again.

        *renew* extends the lock for the work after the exchange. *keep* is the share of the provider's burst left to
        other callers.
        """
        profile = profile_for(self.parts.profiles, situation.connection)
        now = self.parts.clock()
        request = token_request(situation, profile, self.parts.vault, now=now, jti=self.parts.ids())
        if request is None:
            return self.concluder.expire(situation, self._new_intent(situation, now))
        to = situation.token_endpoint
        gate = self.parts.endpoint.gate
        pace = profile.pace_of(situation.account.credential)
        # A caller that is served meanwhile, or asks ahead of need, does not come back for its turn.
        comes_back = keep < AHEAD_KEEPS and not situation.may_serve(now)
        who = Waiter(situation.account.id if comes_back else "")
        if (wait := gate.look(to, pace, keep=keep, who=who)) is not None:
            return self.concluder.serve(situation, retry_after=wait, why=HELD_BACK)
        # The send budget starts only here: with a hanging Redis, the look above could use all of it.
        by = self.parts.monotonic() + self.parts.budget.send.total_seconds()
        new = self._new_intent(situation, self.parts.clock())
        self.parts.reached("before_intent")
        if (intent := self._begin(situation, new)) is None:
            return None
        # Counted only once the presentation is ours. If another account took the turn, nothing was sent.
        if (wait := gate.enter(to, pace, keep=keep, who=who)) is not None:
            return self.concluder.fail(situation, intent, HELD_BACK, wait=wait, unpresented=True)
        self.parts.reached("before_send")
        outcome = self.parts.endpoint.send(named(request, REFRESH_HEADER, intent.id), to=to, send_before=by)
        self.parts.reached("after_send")
        if isinstance(outcome, Answer):
            renew()
            if not self._keep(situation, intent, outcome):
                return None
            intent = replace(intent, state=IntentState.ANSWERED)
            self.parts.reached("after_answer_stored")
        return self.concluder.conclude(situation, intent, outcome)

    def _new_intent(self, situation: Situation, now: datetime) -> RefreshIntent:
        send_before = now + self.parts.budget.send
        return RefreshIntent(
            id=self.parts.ids(),
            account=situation.account.id,
            generation=situation.generation,
            consented=situation.grant.consented,
            started_at=now,
            send_before=send_before,
            settled_by=send_before + self.parts.budget.http,
        )

    def _begin(self, situation: Situation, new: RefreshIntent) -> RefreshIntent | None:
        """Return the committed intent. If its commit is unknown, nothing is sent and the intent is withdrawn."""
        account, former, granted = situation.account, situation.intent, situation.grant.scopes
        try:
            begun = self.parts.store.write(lambda c: begin(c, account, new, former=former, granted=granted))
        except CommitUnknown:
            self.writer.fail_unsent(situation, new, "its commit was unknown, nothing was sent", retry_at=None)
            raise Unavailable(f"the refresh of account {account.id} could not be written down") from None
        match begun:
            case RuledOut():
                raise GrantRevoked(f"account {account.id}: {begun.reason}")
            case Superseded():
                return None
            case RefreshIntent():
                return begun

    def _keep(self, situation: Situation, intent: RefreshIntent, answer: Answer) -> bool:
        """Commit the raw answer before parsing it can fail. False if it came too late."""
        sealed = self.parts.vault.seal(pack(answer), situation.answer_binding)
        return self.writer.insist(intent, "answer", lambda c: store_answer(c, intent.id, sealed))
