"""One presentation of an account's credential to its token endpoint, from the intent to the committed end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from identity.answers import UNNAMED_401, ClientRefused, Dead, Granted, RateLimited, Transient, Unknown, Withheld
from identity.errors import AswhomError, GrantRevoked, Misconfigured, ReauthRequired, Unavailable
from identity.http import Answer, NoAnswer, Outcome
from identity.metrics import REFRESHES, UNRECOGNISED
from identity.minting import (
    AssertionRefused,
    may_be_of_account,
    next_credentials,
    read_token,
    spare_secret,
    token_request,
    untried_key,
)
from identity.model import AccountKey, RuledOut
from identity.own_values import profile_for
from identity.persistent_write import PersistentWrite
from identity.providers.profile import Profile
from identity.refresh.budget import RefreshBudget
from identity.refresh.endings import Ending, Settled, Superseded
from identity.refresh.gate import Endpoint
from identity.refresh.intents import IntentState, RefreshIntent, may_present_again, store_answer
from identity.refresh.opening import begin
from identity.refresh.settlement import Settlement
from identity.refresh.situation import Situation
from identity.refresh.suspected_client import is_of_client
from identity.request_names import REFRESH_HEADER, named
from identity.store import CommitUnknown, Store
from identity.token_endpoint import TokenEndpoint, pack, unpack
from identity.vault import Vault

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

_HELD_BACK = "requests to its token endpoint are held back for now"
_RETRY = timedelta(seconds=2)
_REFUSED_RETRY = timedelta(minutes=1)  # the first; each later one waits twice as long, up to eight times


@dataclass(frozen=True, kw_only=True)
class Presenter:
    """Presents credentials and settles what comes of it. Its methods return the new generation, or None: look again."""

    store: Store
    vault: Vault
    endpoint: TokenEndpoint
    profiles: Mapping[str, Profile]
    budget: RefreshBudget
    clock: Callable[[], datetime]
    ids: Callable[[], str]
    reached: Callable[[str], None]
    restored: Callable[[Connection, AccountKey], None]
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def present(self, situation: Situation, *, keep: float, renew: Callable[[], bool]) -> int | None:
        """Present the credential, once. *renew* keeps the lock for the part after the exchange.

        *keep* is the share of the provider's pace that is left to others.
        """
        profile = self._profile(situation)
        now = self.clock()
        request = token_request(situation, profile, self.vault, now=now, jti=self.ids())
        if request is None:
            return self._expire(situation, self._new_intent(situation, now))
        to = self._endpoint(situation)
        gate = self.endpoint.gate
        pace = profile.pace_of(situation.account.credential)
        if (wait := gate.look(to, pace, keep=keep)) is not None:
            return self.serve(situation, retry_after=wait, why=_HELD_BACK)
        # Only from here does the time to send run: at a Redis that hangs, looking alone takes as long.
        by = self.monotonic() + self.budget.send.total_seconds()
        new = self._new_intent(situation, self.clock())
        self.reached("before_intent")
        if (intent := self._begin(situation, new)) is None:
            return None
        # Counted only now that it is ours to present. Should another account's have come first, nothing was sent.
        if (wait := gate.enter(to, pace, keep=keep)) is not None:
            return self._fail(situation, intent, _HELD_BACK, wait=wait, unpresented=True)
        self.reached("before_send")
        outcome = self.endpoint.send(named(request, REFRESH_HEADER, intent.id), to=to, send_before=by)
        self.reached("after_send")
        if isinstance(outcome, Answer):
            renew()
            if not self._keep(situation, intent, outcome):
                return None
            intent = replace(intent, state=IntentState.ANSWERED)
            self.reached("after_answer_stored")
        return self._conclude(situation, intent, outcome)

    def settle(self, situation: Situation, intent: RefreshIntent) -> int | None:
        """End an intent whose owner may be gone: by its stored answer, else as unknown."""
        if intent.generation != situation.generation:
            self._write(self._settlement(situation, intent).doubt, "the generation moved")
            return None
        outcome: Outcome = NoAnswer(reason="whoever sent it is gone")
        if intent.answer_sealed is not None:
            outcome = unpack(self.vault.open(intent.answer_sealed, situation.answer_binding))
        return self._conclude(situation, intent, outcome, recovered=True)

    def doubt(self, situation: Situation, intent: RefreshIntent, reason: str) -> int | None:
        """The provider may have rotated, and what it said is lost. Raises ReauthRequired unless that is harmless."""
        account, profile = situation.account, self._profile(situation)
        if situation.minted or not profile.rotates:
            return self._fail(situation, intent, reason)
        settlement = self._settlement(situation, intent)
        if may_present_again(intent, profile, by=self.clock() + self.budget.send):
            self._count(situation, "unknown", settled=self._write(settlement.doubt, reason))
            return None
        given_up = self._write(settlement.give_up, reason)
        self._count(situation, "unknown", settled=given_up)
        if not given_up:
            return None
        log.warning("a refresh has no known outcome", extra={"action": "grant.unknown", "account": account.id})
        raise ReauthRequired(f"a refresh of account {account.id} has no known outcome", account=account.id)

    def serve(self, situation: Situation, *, retry_after: timedelta, why: str) -> int:
        """The present generation, while its token lives and was not refused. Raises Unavailable, which says why."""
        account = situation.account
        none = f"{account.provider} gives account {account.id} no token now ({why})"
        return self.serve_or(Unavailable(none, retry_after=retry_after), situation)

    def serve_or(self, error: AswhomError, situation: Situation) -> int:
        """The present generation, while its token lives and was not refused. Raises *error* otherwise."""
        if not situation.may_serve(self.clock()):
            raise error
        self._count(situation, "served")
        return situation.generation

    def _endpoint(self, situation: Situation) -> Endpoint:
        return Endpoint.of(situation.connection, situation.account.credential)

    def _new_intent(self, situation: Situation, now: datetime) -> RefreshIntent:
        send_before = now + self.budget.send
        return RefreshIntent(
            id=self.ids(),
            account=situation.account.id,
            generation=situation.generation,
            consented=situation.grant.consented,
            started_at=now,
            send_before=send_before,
            settled_by=send_before + self.budget.http,
        )

    def _expire(self, situation: Situation, new: RefreshIntent) -> int | None:
        """Nothing renews this token: it lives until its end, then a person must reconnect."""
        account = situation.account
        if situation.may_serve(self.clock()):
            return situation.generation
        words = "its token has ended or was refused, and there is nothing to renew it with"
        if not self._write(self._settlement(situation, new).expire, words):
            return None
        raise ReauthRequired(f"account {account.id}: {words}", account=account.id)

    def _begin(self, situation: Situation, new: RefreshIntent) -> RefreshIntent | None:
        """The intent, committed. One whose commit is unknown sends nothing, and is taken back."""
        account, former, granted = situation.account, situation.intent, situation.grant.scopes
        try:
            begun = self.store.write(lambda c: begin(c, account, new, former=former, granted=granted))
        except CommitUnknown:
            self._take_back(situation, new, "its commit was unknown, nothing was sent", retry_at=None)
            raise Unavailable(f"the refresh of account {account.id} could not be written down") from None
        match begun:
            case RuledOut():
                raise GrantRevoked(f"account {account.id}: {begun.reason}")
            case Superseded():
                return None
            case RefreshIntent():
                return begun

    def _keep(self, situation: Situation, intent: RefreshIntent, answer: Answer) -> bool:
        """Commit the raw answer before anything can go wrong with reading it; False if it came too late."""
        sealed = self.vault.seal(pack(answer), situation.answer_binding)
        return self._insist(intent, "answer", lambda c: store_answer(c, intent.id, sealed))

    def _take_back(
        self, situation: Situation, intent: RefreshIntent, reason: str, *, retry_at: datetime | None
    ) -> bool:
        """Certainly nothing was sent; False if someone was first. An intent left open would be taken for unknown."""
        fail = partial(self._settlement(situation, intent).fail, reason=reason, retry_at=retry_at, unpresented=True)
        return self._has_settled(self._insist(intent, "end", fail))

    def _insist(self, intent: RefreshIntent, what: str, fn: Callable[[Connection], T]) -> T:
        """Write what is known of a presentation and would be lost else, for as long as that may take."""
        where = {"action": f"refresh.{what}_not_stored", "account": intent.account, "intent": intent.id}
        keep = PersistentWrite(
            within=self.budget.store, pause=self.budget.poll, monotonic=self.monotonic, sleep=self.sleep
        )
        return keep.write(self.store, fn, what=f"the {what} of a refresh of account {intent.account}", where=where)

    def _conclude(
        self, situation: Situation, intent: RefreshIntent, outcome: Outcome, *, recovered: bool = False
    ) -> int | None:
        """Act on what came of a presentation; an answer is stored by now.

        *recovered*: whoever presented is gone, and the client's secrets may be others now.
        """
        account = situation.account
        profile = self._profile(situation)
        settlement = self._settlement(situation, intent)
        unsure = recovered and self.store.read(partial(situation.another_was_shown, since=intent.started_at))
        meaning = read_token(situation, profile, outcome, started_at=intent.started_at, scopes=situation.grant.scopes)
        self.endpoint.heed(meaning, outcome, to=self._endpoint(situation))
        match meaning:
            case Granted(answer=granted):
                sealed = next_credentials(situation, self.vault, granted)
                accepted = None if unsure or not situation.secrets else situation.secrets[0]
                committed = self._write(settlement.commit, sealed, accepted=accepted)
                self._count(situation, "success", settled=committed)
                if not committed:
                    return None
                self.reached("after_commit")
                return sealed.generation
            case Transient(reason=reason, retry_after=wait, sent=sent, recognised=recognised):
                if not recognised:
                    UNRECOGNISED.labels(profile.name).inc()
                return self._fail(situation, intent, reason, wait=wait, unpresented=not sent)
            case RateLimited(reason=reason, retry_after=wait):
                return self._fail(situation, intent, reason, wait=wait, outcome="rate_limited")
            case ClientRefused(code=code) | AssertionRefused(code=code) if unsure:
                self._write(settlement.fail, code, retry_at=None)
                return None  # it may have been said of another secret than goes first now: that one is tried
            case ClientRefused(code=code) if code == UNNAMED_401:
                return self._suspect_client(situation, intent)
            case ClientRefused(code=code) if (spare := spare_secret(situation.secrets, profile, code)) is not None:
                first = situation.secrets[0].id
                blamed = self._write(
                    settlement.blame_secret, code, owner=situation.connection, secret=first, spare=spare.id
                )
                self._count(situation, "secret_refused", settled=blamed)
                return None  # look again: the other one goes first now
            case ClientRefused(code=code) if may_be_of_account(code, account.credential):
                return self._withhold(situation, intent, code)
            case ClientRefused(code=code):
                return self._refuse_client(situation, intent, code)
            case AssertionRefused(code=code):
                return self._refuse_assertion(situation, intent, code)
            case Withheld(code=code, person=False):
                return self._withhold(situation, intent, code)
            case Withheld(code=code):
                asked = self._write(settlement.ask_person, code)
                self._count(situation, "needs_person", settled=asked)
                if not asked:
                    return None
                raise ReauthRequired(
                    f"the provider wants the person of account {account.id} ({code})", account=account.id
                )
            case Dead(code=code):
                buried = self._write(settlement.bury, code)
                self._count(situation, "dead", settled=buried)
                if not buried:
                    return None
                raise ReauthRequired(f"the grant of account {account.id} is dead ({code[:60]})", account=account.id)
            case Unknown(reason=reason):
                return self.doubt(situation, intent, reason)

    def _refuse_assertion(self, situation: Situation, intent: RefreshIntent, code: str) -> int | None:
        """Have another live key sign; with none, serve the present token while it lives, and try again later."""
        account = situation.account
        if self._has_another_tried(situation, intent, code):
            return None
        settlement = self._settlement(situation, intent)
        failed = self._write(settlement.blame_nobody, code, retry_at=settlement.now + _longer(_rounds(intent)))
        self._count(situation, "assertion_refused", settled=failed)
        why = (
            f"{account.provider} refuses what provider connection {situation.connection.id} signs for account "
            f"{account.id} ({code}): look at its key, at this machine's clock, and at what it was allowed there"
        )
        return self.serve_or(Misconfigured(why), situation) if failed else None

    def _has_another_tried(self, situation: Situation, intent: RefreshIntent, code: str) -> bool:
        """Whether another live secret is to be shown for this account, which holds nothing against the first."""
        settlement = self._settlement(situation, intent)
        if untried_key(situation.secrets, intent, now=settlement.now) is None:
            return False
        first = situation.secrets[0]
        noted = self._write(settlement.refuse_key, code, key=first.id)
        self._count(situation, "secret_refused", settled=noted)
        where = {"action": "connection.another_tried", "secret": first.id, "account": situation.account.id}
        log.warning("with %s it was refused (%s): another live one is tried", first.id, code[:60], extra=where)
        return True  # look again: for this account another one goes first now

    def _suspect_client(self, situation: Situation, intent: RefreshIntent) -> int | None:
        """A gateway may have said it. Have another live secret shown; if it stays so for others too, it is the client.

        RFC 6749 §5.2 has 401 for a client that was not authenticated, and for nothing else.
        """
        if self._has_another_tried(situation, intent, UNNAMED_401):
            return None
        suspects = partial(is_of_client, situation=situation, code=UNNAMED_401, rounds=_rounds(intent))
        if self.store.read(suspects):
            return self._refuse_client(situation, intent, UNNAMED_401)
        return self._withhold(situation, intent, UNNAMED_401)

    def _refuse_client(self, situation: Situation, intent: RefreshIntent, code: str) -> int | None:
        settlement, owner = self._settlement(situation, intent), situation.connection
        blamed = self._write(settlement.blame_client, code, owner=owner, shown=situation.secrets)
        self._count(situation, "client_refused", settled=blamed)
        if not blamed:
            return None
        raise Misconfigured(f"the token endpoint refused the client of provider connection {owner.id} ({code[:60]})")

    def _withhold(self, situation: Situation, intent: RefreshIntent, code: str) -> int | None:
        """Serve the present token while it lives, and ask again later: it may be this account's fault alone."""
        account, owner = situation.account, situation.connection.id
        settlement = self._settlement(situation, intent)
        failed = self._write(settlement.blame_nobody, code, retry_at=settlement.now + _longer(_rounds(intent)))
        self._count(situation, "account_refused", settled=failed)
        look = (
            f"the {situation.secret_name or 'secret'} of provider connection {owner} is wrong, or a gateway before the "
            "token endpoint refuses us"
            if code == UNNAMED_401
            else f"look whether the client of provider connection {owner} may have there what it asks for, in that "
            "account's organisation too"
        )
        why = f"{account.provider} gives account {account.id} no token ({code[:60]}): {look}"
        log.warning("%s", why, extra={"action": "grant.withheld", "account": account.id})
        return self.serve_or(Misconfigured(why), situation) if failed else None

    def _fail(
        self,
        situation: Situation,
        intent: RefreshIntent,
        reason: str,
        *,
        wait: timedelta = _RETRY,
        unpresented: bool = False,
        outcome: str = "transient",
    ) -> int | None:
        """Nothing happened: serve the present token while it lives."""
        retry_at = self.clock() + wait
        if unpresented:
            failed = self._take_back(situation, intent, reason, retry_at=retry_at)
        else:
            failed = self._write(self._settlement(situation, intent).fail, reason, retry_at=retry_at)
        self._count(situation, outcome, settled=failed)
        return self.serve(situation, retry_after=wait, why=reason) if failed else None

    def _write(self, act: Callable[Concatenate[Connection, P], Ending], /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Settle in one transaction; False if someone was first. Raises GrantRevoked and Unavailable."""
        try:
            ending = self.store.write(lambda connection: act(connection, *args, **kwargs))
        except CommitUnknown:
            # It takes effect once at most, so the caller only has to look again.
            log.warning("the end of a refresh may not be committed", extra={"action": "refresh.commit_unknown"})
            return False
        return self._has_settled(ending)

    @staticmethod
    def _has_settled(ending: Ending) -> bool:
        if isinstance(ending, RuledOut):
            raise GrantRevoked(ending.reason)
        return isinstance(ending, Settled)

    def _settlement(self, situation: Situation, intent: RefreshIntent) -> Settlement:
        return Settlement(
            account=situation.account, intent=intent, now=self.clock(), ids=self.ids, restored=self.restored
        )

    def _profile(self, situation: Situation) -> Profile:
        return profile_for(self.profiles, situation.connection)

    @staticmethod
    def _count(situation: Situation, outcome: str, *, settled: bool = True) -> None:
        REFRESHES.labels(situation.account.provider, outcome if settled else "moved").inc()


def _rounds(intent: RefreshIntent) -> int:
    """How often it was presented by each of the live secrets."""
    return intent.presented // (1 + len(intent.refused_keys))


def _longer(times: int) -> timedelta:
    """How long to leave alone what was refused so many times, and may be until somebody acts."""
    return _REFUSED_RETRY * (1 << min(times - 1, 3))
