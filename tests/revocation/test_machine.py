"""Any order of consents, refreshes, openings, closings, retries, replays, revocations and late signals keeps the rule.

Hypothesis drives the real ledger functions and compares them with a model of a dozen lines: the numbers themselves.
What it must never see: an opening against the rule; cancelled work that a consent brings back; a refresh that was out
when its grant was revoked and brings it back, or whose answer nobody keeps to end it at the provider; a late signal
that moves anything, or a late security event that ends what is younger; the provider's echo of what was ended here that
ends a later consent without a doubt, or what is in doubt for good and left alive there; a suspension that an older word
undoes; an opening by a scope of the provider's that a narrowing took away; a call that was out at a narrowing and is
not on its receipt.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, select, update

from identity.accounts.grants import SealedAnswer, get_grant, seal_answer
from identity.accounts.scopes import remember_stop
from identity.accounts.states import find_account, get_account
from identity.audit import Act
from identity.connect.consent_ledger import Consent, Consented, store_consent
from identity.connect_sessions.sessions import CONNECTED, ConnectSession, add_session, note_outcome, use_up
from identity.connections.registry import add_connection, get_connection
from identity.errors import Unavailable
from identity.model import AccountKey, AccountState, Credential, Scope, ScopeKind, TokenAnswer, scopes_over
from identity.refresh.endings import Settled
from identity.refresh.intents import IntentState, RefreshIntent, store_answer
from identity.refresh.late_answers import kept_answers
from identity.refresh.opening import begin
from identity.refresh.settlement import Settlement
from identity.secret import Secret
from identity.sql.sequence import next_number
from identity.transmitters import Transmitter
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import Withdrawal, WithdrawalState, get_withdrawal, settle
from identity.withdrawals.withdrawer import WithdrawalTurn
from pipeline.accounts.connecting import wake_waiting
from pipeline.db.database import Database
from pipeline.jobs import awaited
from pipeline.jobs import claims as ledger_jobs
from pipeline.jobs.claims import ClaimedJob
from pipeline.jobs.intents import Intent, Opened
from pipeline.model import SecurityEvent
from pipeline.revocation.declaration import Cause, declare, load
from pipeline.revocation.narrowing import narrow_account
from pipeline.revocation.security_events import accept as accept_event
from pipeline.revocation.tables import revocations
from pipeline.revoker.inquiry import SignalDoubt
from pipeline.revoker.provider_side import ProviderAsker
from pipeline.signal import Asks, Installation, People, Signal
from pipeline.states import AttemptState, JobState, StepState
from pipeline.steps.replay import replay_job
from pipeline.tables import jobs as jobs_table
from tests.chance import IN_CONTROL, seed_of
from tests.ledger.acts import SIGNER, close, open_
from tests.ledger.house import House, account_scope
from tests.ledger.house import intent_of as intent
from tests.ledger.revokers import quiet_revoker
from tests.ledger.signals import say
from tests.ledgers import open_ledger
from tests.servers.postgres import Emptied
from tests.webhooks.events import register

ADA = AccountKey(tenant="acme", connection="gh", principal="acme.ada")
HERS = (ADA, replace(ADA, connection="sl"))  # the other is there for what is said of her as a person
PROVIDERS = {"gh": "github", "sl": "slack"}
IDP = Transmitter(
    id="idp", issuer="i", audience="a", jwks_url="https://idp.example/jwks", tenant="acme", connection=None
)
USER = Scope(kind=ScopeKind.USER, key="acme.ada")
SCOPES = (
    account_scope(),
    USER,
    Scope(kind=ScopeKind.AGENT, key="tester"),
    Scope(kind=ScopeKind.CONNECTION, key="gh"),
    Scope(kind=ScopeKind.TENANT, key="acme"),
)
OF_GRANT = tuple(scope for scope in SCOPES if scope.kind is not ScopeKind.AGENT)
GRANTED = ("comments", "issues")  # the provider's scopes, of which a step needs one or none
LONG = timedelta(hours=2)
BLUR = timedelta(milliseconds=10)  # by which the database's clock and ours may tell a moment otherwise
#: What orders of events must come to, or they show nothing.
REACHED = {
    "an opening",
    "a step of a job from before what was revoked and consented to anew",
    "a step without a scope that was taken away",
    "a consent after cancelled work",
    "a late signal on a live account",
    "a refresh won after its revocation",
    "its end at the provider",
    "an echo of a revocation above the account",
    "an echo after a reconnect",
    "an end that was asked for in doubt",
    "a late security event beside what was revoked",
    "a security event of what lives",
    "an older word than the last suspension",
    "a call that was out at a narrowing",
}


@dataclass(frozen=True, kw_only=True)
class Link:
    """One that somebody may consent by."""

    id: str
    key: AccountKey
    started: int
    began: datetime


BATCH = 30
MORE = 300  # how many orders are looked for beyond those that are asked for


class Ledger(RuleBasedStateMachine):
    """One person, two accounts, of which one has jobs; `template` is a migrated ledger to copy."""

    template: ClassVar[Path]
    folder: ClassVar[Path]
    _made: ClassVar[int] = 0
    reached: ClassVar[Counter[str]] = Counter()  # by all orders of events together

    jobs = Bundle("jobs")
    sessions = Bundle("sessions")

    @initialize()
    def begin(self) -> None:
        self.database = self.opened()
        self.house = House(self.database)
        self.revoked: dict[Scope, int] = dict.fromkeys(
            (*SCOPES, *scopes_over(HERS[1])), 0
        )  # the model: a number a scope
        self.stopped: set[Scope] = set()
        self.taken: set[str] = set()  # by narrowings since the last consent
        self.claimed: dict[str, ClaimedJob] = {}
        self.flying: list[Intent] = []
        self.refreshing: list[tuple[Settlement, SealedAnswer]] = []
        self.cancelled: dict[str, int] = {}  # jobs, by the number they were accepted with
        self.positions: dict[str, int] = {}
        self.won: set[str] = set()  # refreshes whose answers came after their revocation
        self.asked: set[str] = set()  # withdrawals: what the provider was asked to end
        self.links: list[Link] = []  # that nobody has followed yet
        self.consents = {key: (self.grant(key).consented, self.grant(key).consented_at) for key in HERS}
        self.moments = [datetime.now(UTC)]  # of which somebody may tell later
        self.left: list[datetime] = []  # when all of hers was revoked
        self.word: datetime | None = None  # the newest of suspensions and their ends
        self.out: dict[str, set[str]] = {}  # narrowings without a receipt yet, and the calls that were out

    def opened(self) -> Database:
        type(self)._made += 1
        path = self.folder / f"{self._made}.sqlite"
        shutil.copy(self.template, path)
        self.path: Path | None = path
        return open_ledger(f"sqlite:///{path}")

    def teardown(self) -> None:
        if not hasattr(self, "database"):
            return
        try:
            if sys.exc_info()[0] is None:  # else what failed would be hidden by what follows from it
                self._come_to_an_end()
        finally:
            self.database.close()
            if self.path is not None:
                for file in self.folder.glob(f"{self.path.name}*"):
                    file.unlink()

    def _come_to_an_end(self) -> None:
        """What is asked of every order of events, and not only where chance tidies up last."""
        while self.refreshing:
            self.end_refresh(dead=False)
        self._close_all()
        for job in [*self.claimed]:
            self.finish(job)
        assert self._tidy(SignalDoubt.UNKNOWN), "a revocation does not end, though nothing of it is left"

    # What the model knows

    def account(self) -> AccountState:
        found = self.database.read(partial(find_account, key=ADA))
        assert found is not None
        return found.state

    def grant(self, key: AccountKey = ADA) -> Any:
        found = self.database.read(partial(find_account, key=key))
        assert found is not None
        return self.database.read(partial(get_grant, account=found.id))

    def ended(self, key: AccountKey) -> int:
        """The newest revocation of what its consent depends on."""
        return max(self.revoked.get(scope, 0) for scope in scopes_over(key))

    def is_connecting(self, key: AccountKey) -> bool:
        return any(link.key == key and link.started > self.ended(key) for link in self.links)

    def allows(self, accepted: int) -> bool:
        """The rule by which a step opens, in the model's own words."""
        return accepted > max(self.revoked.values()) and self.is_connected()

    def is_connected(self) -> bool:
        if self.stopped:
            return False
        consented = self.grant().consented
        return self.account() is AccountState.ACTIVE and consented > max(self.revoked[scope] for scope in OF_GRANT)

    # What happens

    @rule(target=jobs)
    def accept(self) -> str:
        return self.house.job()

    @rule(job=jobs)
    def claim(self, job: str) -> None:
        if self.house.row(job).state == JobState.QUEUED:
            held = self.house.claim(job)
            self.claimed[held.id] = held

    @rule(job=jobs, needs=st.sampled_from([(), *((scope,) for scope in GRANTED)]))
    def open(self, job: str, needs: tuple[str, ...]) -> None:
        held = self.claimed.get(job)
        if held is None or self.house.row(job).state != JobState.RUNNING:
            return
        allowed = self.allows(held.accepted)
        self.reached["a step of a job from before what was revoked and consented to anew"] += (
            not allowed and self.is_connected()
        )
        self.positions[job] = self.positions.get(job, 0) + 1
        asked = intent(self.house, held, step=self.house.ids("step"), position=self.positions[job])
        asked = replace(asked, lease=replace(asked.lease, scopes=frozenset(needs)))
        outcome = open_(self.house, asked)
        self.reached["a step without a scope that was taken away"] += bool(allowed and self.taken & set(needs))
        if isinstance(outcome, Opened):
            assert not self.taken & set(needs), "a step opened by a scope that was taken away"
            assert allowed, "a step opened against the rule"
            self.reached["an opening"] += 1
            self.flying.append(asked)
        elif allowed:
            # The rule allows it, so it is a scope that is missing, or the token: a refresh would be next.
            assert not set(needs) <= set(self.grant().scopes) or self.grant().access_sealed is None

    @precondition(lambda self: bool(self.flying))
    @rule(effect=st.sampled_from([AttemptState.EFFECT, AttemptState.NO_EFFECT, AttemptState.UNKNOWN]), data=st.data())
    def close(self, effect: AttemptState, data: st.DataObject) -> None:
        asked = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        step = {
            AttemptState.EFFECT: StepState.DONE,
            AttemptState.NO_EFFECT: StepState.OPEN,
            AttemptState.UNKNOWN: StepState.UNKNOWN,
        }[effect]
        close(self.house, asked, effect, step, **({"result": {"id": "1"}} if step is StepState.DONE else {}))

    @rule(job=jobs)
    def retry(self, job: str) -> None:
        held = self.claimed.pop(job, None)
        if held is not None:
            requeue = partial(ledger_jobs.requeue, job=held, delay=timedelta(), reason="again")
            self.database.write(requeue)

    @rule(job=jobs)
    def finish(self, job: str) -> None:
        held = self.claimed.pop(job, None)
        if held is not None:
            self.database.write(partial(ledger_jobs.finish, job=held))

    @rule(job=jobs)
    def replay(self, job: str) -> None:
        if self.house.row(job).state in (JobState.CANCELLED, JobState.DEAD):
            self.database.write(partial(replay_job, job=job, by="test", at=datetime.now(UTC)))
            self.cancelled.pop(job, None)
            self.claimed.pop(job, None)

    @rule(scope=st.sampled_from(SCOPES))
    def revoke(self, scope: Scope) -> None:
        id, now, cause = self.house.ids("rev"), datetime.now(UTC), Cause(source="t", by="t", reason="t")
        self.revoked[scope] = self.database.write(lambda c: declare(c, scope, cause, id=id, tenant="acme", now=now))
        self.left += [datetime.now(UTC)] if scope == USER else []
        self.moments.append(datetime.now(UTC))

    @rule(verdict=st.sampled_from([SignalDoubt.DEAD, SignalDoubt.UNKNOWN]))
    def tidy(self, verdict: SignalDoubt = SignalDoubt.UNKNOWN) -> None:
        self._tidy(verdict)

    def _tidy(self, verdict: SignalDoubt) -> bool:
        """True if nothing is in flight any more: then all that was won late was ended at the provider."""

        def inquire(revocation: str) -> bool:
            open_one = (revocations.c.id == revocation) & (revocations.c.doubt == SignalDoubt.OPEN)
            self.database.write(lambda c: c.execute(update(revocations).where(open_one).values(doubt=verdict)).rowcount)
            return True

        asker = ProviderAsker(self.database, self._ask, clock=lambda: datetime.now(UTC))
        revoker = quiet_revoker(self.database, SIGNER, withdraw=asker.advance, inquire=inquire)
        quiet = [revoker.advance(made) for made in (*revoker.unfinished(idle_seconds=-1), *asker.due())]
        if not all(quiet):  # calls are in flight, and it is asked after those
            return False
        self.reached["its end at the provider"] += bool(self.won)
        assert self.won <= self.asked, "what a refresh won after its revocation was left alive at the provider"
        in_doubt = select(revocations.c.id).where(revocations.c.doubt == SignalDoubt.UNKNOWN)
        ended = select(withdrawals.c.state).where(withdrawals.c.revocation_id.in_(in_doubt))
        states = self.database.read(lambda c: list(c.execute(ended).scalars()))
        self.reached["an end that was asked for in doubt"] += len(states)
        assert set(states) <= {WithdrawalState.DONE}, "what is in doubt for good was not asked for"
        self._look_at_narrowings()
        return True

    def _look_at_narrowings(self) -> None:
        """The tests' action is installed nowhere, so each call may have needed what was taken."""
        for made, calls in self.out.items():
            receipt = self.database.read(partial(load, revocation=made)).receipt
            listed = {call["attempt"] for call in receipt["in_flight"]}
            assert calls <= listed, "a call that was out is not on the receipt"
            self.reached["a call that was out at a narrowing"] += bool(calls)
        self.out.clear()

    def _ask(self, withdrawal: str, _others: Sequence[str]) -> WithdrawalTurn:
        """The provider is asked, and has ended it."""

        def end(c: Connection) -> Withdrawal | None:
            found = get_withdrawal(c, withdrawal)
            settle(c, withdrawal, to=WithdrawalState.DONE, reason="asked", now=datetime.now(UTC))
            return found

        one = self.database.write(end)
        assert one is not None
        of = self.database.read(partial(get_account, account=one.account))
        assert one.consented <= self.ended(of.key), "a later consent was ended"
        self.asked.add(withdrawal)
        return WithdrawalTurn()

    @rule(scope=st.sampled_from(SCOPES))
    def stop(self, scope: Scope) -> None:
        self.database.write(lambda c: remember_stop(c, scope, stopped=True))
        self.stopped.add(scope)

    @precondition(lambda self: bool(self.stopped))
    @rule()
    def open_again(self) -> None:
        for scope in self.stopped:
            self.database.write(partial(remember_stop, scope=scope, stopped=False))
        self.stopped.clear()

    @rule(keep=st.sampled_from(GRANTED))
    def narrow(self, keep: str) -> None:
        had = set(self.grant().scopes)
        if not {keep} < had:
            return
        act, id = Act(audit_id=self.house.ids("aud"), by="test", now=datetime.now(UTC)), self.house.ids("rev")

        def narrow_(c: Connection) -> None:
            account = find_account(c, ADA)
            assert account is not None
            narrow_account(c, account, act, id=id, keep=(keep,), source="t", reason="t")

        self.database.write(narrow_)
        self.taken |= had - {keep}
        self.out[id] = {asked.attempt for asked in self.flying}

    # Signals

    @rule(seen=st.booleans())
    def signal(self, seen: bool) -> None:
        """Of no time, as GitHub's: a withdrawal, a replay of one, or the echo of what was ended here."""
        was, ended = self.account(), self.ended(ADA)
        lives = self.consents[ADA][0] > ended
        said = Signal(source="github.t", asks=Asks.REVOKE, whom=(People(ids=frozenset({"1001"})),), reason="t")
        made = say(self.house, said, seen=seen).revocations
        assert bool(made) is (lives or self.is_connecting(ADA)), "a signal did not fail closed, or ended what had ended"
        if made:
            doubt = select(revocations.c.doubt).where(revocations.c.id == made[0])
            doubted = self.database.read(lambda c: c.execute(doubt).scalar_one())
            assert doubted == (SignalDoubt.OPEN if seen or ended else None), "an echo was not doubted"
            self.reached["an echo after a reconnect"] += bool(lives and ended and not seen)
            self.revoked[account_scope()] = self._newest()
        else:
            self.reached["an echo of a revocation above the account"] += was is AccountState.ACTIVE

    def _newest(self) -> int:
        newest = select(revocations.c.number).order_by(revocations.c.number.desc()).limit(1)
        return int(self.database.read(lambda c: c.execute(newest).scalar_one()))

    @rule(asks=st.sampled_from([Asks.REVOKE, Asks.SUSPEND, Asks.RESUME]), seen=st.booleans())
    def late_signal(self, asks: Asks, seen: bool) -> None:
        """Of a time before every consent: it moves nothing."""
        before, lives = (self.account(), self.grant(), self._states()), self.consents[ADA][0] > self.ended(ADA)
        self.reached["a late signal on a live account"] += lives and before[0] is AccountState.ACTIVE
        late = datetime.now(UTC) - LONG
        whom = People(ids=frozenset({"1001"}))
        said = Signal(source="t", asks=asks, whom=(whom, Installation(id="gone")), reason="t", happened_at=late)
        # A link that is under way is ended by any revocation, however late: that is what failing closed means.
        made = say(self.house, said, seen=seen).revocations
        if made:
            assert not lives
            self.revoked[account_scope()] = self._newest()
            return
        assert (self.account(), self.grant(), self._states()) == before

    @rule(suspend=st.booleans(), minute=st.integers(0, 3))
    def suspension(self, suspend: bool, minute: int) -> None:
        """Told in whatever order: by the sender's clock it is of that minute."""
        asks, whom = Asks.SUSPEND if suspend else Asks.RESUME, People(ids=frozenset({"1001"}))
        at = datetime.now(UTC) + timedelta(seconds=2, minutes=minute)
        was, grant = self.account(), self.grant()
        say(self.house, Signal(source="t", asks=asks, whom=(whom,), reason="t", happened_at=at))
        if was in (AccountState.REVOKED, AccountState.PENDING):
            assert self.account() is was
            return
        newest = self.word is None or at > self.word
        if not newest:
            self.reached["an older word than the last suspension"] += was is AccountState.SUSPENDED and not suspend
            assert self.account() is was, "an older word than the last undid it"
            return
        self.word = at
        if suspend and was is AccountState.ACTIVE:
            assert self.account() is AccountState.SUSPENDED
        elif not suspend and was is AccountState.SUSPENDED:
            # A revocation of what is above it ends its credentials at the provider, and leaves its state alone.
            held = grant.access_sealed is not None or grant.refresh_sealed is not None
            assert self.account() is (AccountState.ACTIVE if held else AccountState.NEEDS_RECONNECT)
        else:
            assert self.account() is was

    @rule(back=st.integers(0, 4))
    def security_event(self, back: int) -> None:
        """An identity provider tells of a moment: what lives and is older ends with all of hers, else nothing does."""
        at = self.moments[-1 - min(back, len(self.moments) - 1)]
        live = [began for key, (number, began) in self.consents.items() if number > self.ended(key)]
        begun = [link.began for link in self.links if link.started > self.ended(link.key)]
        said = Signal(
            source="caep.session-revoked",
            asks=Asks.REVOKE,
            whom=(People(ids=frozenset({"u-1"})),),
            reason="t",
            happened_at=at,
            precision=timedelta(),
        )
        event = SecurityEvent(
            transmitter="idp", jti=self.house.ids("jti"), events=("t",), signals=(said,), note="", token=b"t"
        )
        accept = partial(accept_event, event=event, transmitter=IDP, id=self.house.ids("rev"), now=datetime.now(UTC))
        made = self.database.write(accept).revocations
        if live and not any(one < at for one in (*live, *begun)):
            assert not made, "a late security event ended what is younger"
            self.reached["a late security event beside what was revoked"] += len(live) < len(HERS)
        elif any(one < at for one in live) and not any(one > at - BLUR for one in self.left):
            assert made, "a security event about what lives did not fail closed"
            self.reached["a security event of what lives"] += 1
        if made:
            self.revoked[USER] = self._newest()
            self.left.append(datetime.now(UTC))

    # Consents and refreshes

    @rule(target=sessions, key=st.sampled_from(HERS))
    def start_session(self, key: AccountKey = ADA) -> Link:
        now = datetime.now(UTC)
        id = self.house.ids("con")

        def start(c: Any) -> int:
            number = next_number(c)
            add_session(
                c,
                ConnectSession(
                    id=id,
                    key=key,
                    state_hash=id,
                    started=number,
                    scopes=(),
                    verifier_sealed=b"",
                    browser_hash=None,
                    expires_at=now + LONG,
                    finished_at=None,
                    created_at=now,
                ),
            )
            return number

        link = Link(id=id, key=key, started=self.database.write(start), began=now)
        self.links.append(link)
        self.moments.append(datetime.now(UTC))
        return link

    @rule(link=sessions)
    def consent(self, link: Link) -> None:
        key, started, grant = link.key, link.started, self.grant(link.key)
        if link not in self.links or started <= grant.consented:
            return  # a link is good once
        answer, account, provider = self._answer(f"c{started}"), grant.account, PROVIDERS[key.connection]
        sealed = seal_answer(
            self.house.vault, answer, tenant="acme", account=account, provider=provider, generation=grant.generation + 1
        )
        consent = Consent(
            id=account,
            key=key,
            provider=provider,
            credential=Credential.AUTHORIZATION_CODE,
            consented=started,
            external_id="1001",
            began_at=link.began,
        )

        def write(c: Any) -> Any:
            assert use_up(c, link.id, now=datetime.now(UTC))
            outcome = store_consent(c, consent, sealed, now=datetime.now(UTC))
            assert note_outcome(c, link.id, CONNECTED, {})
            if isinstance(outcome, Consented):
                awaited.wake(c, awaited.consent_of(key))
            return outcome

        outcome = self.database.write(write)
        self.links.remove(link)
        allowed = not (self.stopped & set(scopes_over(key))) and started > self.ended(key)
        assert isinstance(outcome, Consented) is allowed, "a consent from before a revocation counted"
        if allowed:
            self.consents[key] = (started, link.began)
        if allowed and key == ADA:
            assert self.account() is AccountState.ACTIVE
            self.taken.clear()
            self.reached["a consent after cancelled work"] += bool(self.cancelled)

    @rule()
    def begin_refresh(self) -> None:
        account = self.database.read(partial(find_account, key=ADA))
        grant = self.grant()
        assert account is not None
        now = datetime.now(UTC)
        new = RefreshIntent(
            id=self.house.ids("ref"),
            account=account.id,
            generation=grant.generation,
            consented=grant.consented,
            state=IntentState.OPEN,
            opened=0,
            started_at=now,
            send_before=now + timedelta(seconds=5),
            settled_by=now + timedelta(seconds=25),
            presented=1,
        )
        made = self.database.write(partial(begin, account=account, new=new, former=None, granted=grant.scopes))
        if not isinstance(made, RefreshIntent):
            return
        revoked = max(self.revoked[scope] for scope in OF_GRANT)
        assert grant.consented > revoked
        assert not self.stopped & set(OF_GRANT)
        sealed = seal_answer(
            self.house.vault,
            self._answer(made.id),
            tenant="acme",
            account=account.id,
            provider="github",
            generation=grant.generation + 1,
        )
        answered = replace(made, state=IntentState.ANSWERED)
        settlement = Settlement(
            account=account, intent=answered, now=now, ids=partial(self.house.ids, "aud"), restored=wake_waiting
        )
        self.refreshing.append((settlement, sealed))

    @precondition(lambda self: bool(self.refreshing))
    @rule(dead=st.booleans())
    def end_refresh(self, dead: bool) -> None:
        settlement, sealed = self.refreshing.pop(0)
        before = self.grant()
        self.database.write(partial(store_answer, intent=settlement.intent.id, sealed=b"raw"))
        end = partial(settlement.bury, code="invalid_grant") if dead else partial(settlement.commit, sealed=sealed)
        was = self.account()
        outcome = self.database.write(end)
        revoked = settlement.intent.consented <= max(self.revoked[scope] for scope in OF_GRANT)
        moved = before.generation != settlement.intent.generation
        if revoked or moved:
            assert not isinstance(outcome, Settled), "a refresh brought back what was revoked or replaced"
            assert self.grant() == before
            assert self.account() is was
        kept = self.database.read(partial(kept_answers, account=settlement.account.id))
        late = settlement.intent.id in {intent.id for intent in kept}
        self.won |= {settlement.intent.id} if late else set()
        self.reached["a refresh won after its revocation"] += late
        assert late is revoked, "an answer is kept if it came after a revocation, to be ended at the provider, or not"

    # All the way: what a dozen rules in one order come to is seldom reached by chance

    @rule(target=jobs, connected=st.booleans(), keeps=st.sampled_from([None, *GRANTED]))
    def work(self, connected: bool, keeps: str | None) -> str:
        """A job to its step, for somebody who has connected just now, or not, and kept some scopes, or all."""
        if connected:
            self.connect_again()
        if keeps is not None:
            self.narrow(keeps)
        job = self.house.job()
        self.claim(job)
        self.open(job, GRANTED[:1])
        return job

    @rule(scope=st.sampled_from(SCOPES))
    def open_after_a_reconnect(self, scope: Scope) -> None:
        job = self.work(connected=True, keeps=None)
        self.revoke(scope)
        self.connect_again()
        self.open(job, ())

    @rule()
    def narrow_beside_a_call(self) -> None:
        self.work(connected=True, keeps=None)
        self.narrow(GRANTED[1])
        self._close_all()
        self.tidy()

    def _close_all(self) -> None:
        while self.flying:
            close(self.house, self.flying.pop(), AttemptState.EFFECT, StepState.DONE, result={"id": "1"})

    @rule(key=st.sampled_from(HERS))
    def connect_again(self, key: AccountKey = ADA) -> None:
        """Nobody is stopped any more, and a consent is given."""
        if self.stopped:
            self.open_again()
        self.consent(self.start_session(key))

    @rule(scope=st.sampled_from(OF_GRANT), dead=st.booleans())
    def revoke_beside_a_refresh(self, scope: Scope, dead: bool) -> None:
        self.connect_again()
        self.begin_refresh()
        self.revoke(scope)
        while self.refreshing:
            self.end_refresh(dead)
        self.tidy()

    @rule(scope=st.sampled_from(OF_GRANT))
    def echo(self, scope: Scope) -> None:
        """Of what was ended here: before she has connected again, and after."""
        self.connect_again()
        self.revoke(scope)
        self.signal(seen=False)
        self.connect_again()
        self.signal(seen=False)
        self.tidy()

    @rule()
    def reconnect_one_of_two_before_a_late_event(self) -> None:
        for key in HERS:
            self.connect_again(key)
        self.security_event(back=0)
        self.moments.append(datetime.now(UTC))
        self.connect_again()
        self.security_event(back=1)

    @rule(words=st.permutations([(True, 0), (False, 1), (True, 2)]))
    def suspend_twice_in_any_order(self, words: list[tuple[bool, int]]) -> None:
        self.connect_again()
        for suspend, minute in words:
            self.suspension(suspend, minute)

    @staticmethod
    def _answer(mark: str) -> TokenAnswer:
        return TokenAnswer(
            access_token=Secret(f"access-{mark}"),
            refresh_token=Secret(f"refresh-{mark}"),
            expires_at=datetime.now(UTC) + LONG,
            scopes=GRANTED,
            token_type="bearer",
        )

    # What is always so

    def _states(self) -> dict[str, str]:
        return dict(self.house.states())

    @invariant()
    def cancelled_work_stays_cancelled(self) -> None:
        if not hasattr(self, "database"):
            return
        rows = self.database.read(
            lambda c: c.execute(select(jobs_table.c.id, jobs_table.c.state, jobs_table.c.accepted))
        )
        for row in list(rows):
            if row.id in self.cancelled:
                assert row.state == JobState.CANCELLED, "what was cancelled came back without a person's replay"
            elif row.state == JobState.CANCELLED:
                self.cancelled[row.id] = row.accepted


T = TypeVar("T")


class Patient:
    """A ledger whose transactions are made again where its server ended them for standing still, as on a busy machine:
    nothing of them was written.
    """

    def __init__(self, database: Database) -> None:
        self.engine = database.engine
        self.close = database.close
        self.check_fit, self.in_commit = database.check_fit, database.in_commit
        self._database = database

    def write(self, fn: Callable[[Connection], T], *, until: float | None = None, ahead: bool = False) -> T:
        return self._made(lambda made: self._database.write(made, until=until, ahead=ahead), fn)

    def read(self, fn: Callable[[Connection], T], *, ahead: bool = False) -> T:
        return self._made(lambda made: self._database.read(made, ahead=ahead), fn)

    @staticmethod
    def _made(how: Callable[[Callable[[Connection], T]], T], fn: Callable[[Connection], T]) -> T:
        for _ in range(4):
            try:
                return how(fn)
            except Unavailable as error:
                if "idle-in-transaction timeout" not in str(error.__cause__):
                    raise
        return how(fn)


class OnPostgres(Ledger):
    """The same on PostgreSQL: one migrated database, emptied before each order of events."""

    migrated: ClassVar[Emptied]

    def opened(self) -> Database:
        self.path = None
        self.migrated.empty()
        database = Patient(open_ledger(self.migrated.url))
        build(database)
        return database


def build(database: Database) -> None:
    """The house, in which ada is connected twice, and known to an identity provider."""
    house = House(database)
    house.build()

    def more(c: Connection) -> None:
        now = datetime.now(UTC)
        add_connection(c, replace(get_connection(c, "gh"), id="sl", provider="slack", tenant="acme"), now=now)
        register(c, IDP, now=now)

    database.write(more)
    house.connect("acme", "acme.ada", through="sl")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: thousands of commits need not be flushed to a disk to be in order."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def on_postgres(migrated_postgres: Emptied) -> Iterator[type[OnPostgres]]:
    OnPostgres.migrated = migrated_postgres
    yield OnPostgres
    migrated_postgres.empty()


def run_on_sqlite(folder: Path, migrated: Path, *, examples: int, slow: bool) -> None:
    Ledger.folder, Ledger.template = folder, folder / "built.sqlite"
    shutil.copy(migrated, Ledger.template)
    database = open_ledger(f"sqlite:///{Ledger.template}")
    build(database)
    database.close()
    drive(Ledger, examples=examples, slow=slow)


def drive(machine: type[Ledger], *, examples: int, slow: bool) -> None:
    """Orders of events, a few dozen at a time until so many were tried, and whatever must be met was met."""
    machine.reached = Counter()
    chosen = seed_of(slow=slow)
    for tried in itertools.count(BATCH, BATCH):
        _drive(seed(chosen + tried)(machine), examples=BATCH)
        if tried >= examples and (not _missed(machine) or tried >= examples + MORE):
            return


def _drive(machine: type[Ledger], *, examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            derandomize=False,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            # A control asks only whether it fails, and is cut before the failure is at its smallest.
            phases=[Phase.generate] if IN_CONTROL else list(Phase),
        ),
    )


def came_to_all(machine: type[Ledger]) -> None:
    assert not _missed(machine), "the rule was kept where nothing tried it"


def _missed(machine: type[Ledger]) -> set[str]:
    return REACHED - {what for what, times in machine.reached.items() if times}


def test_any_order_of_events_keeps_the_rule(migrated_sqlite: Path, folder: Path) -> None:
    run_on_sqlite(folder, migrated_sqlite, examples=30, slow=False)
    came_to_all(Ledger)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thousands_of_orders_of_events_keep_the_rule(migrated_sqlite: Path, folder: Path) -> None:
    run_on_sqlite(folder, migrated_sqlite, examples=2000, slow=True)
    came_to_all(Ledger)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_hundreds_of_orders_of_events_keep_the_rule_on_postgresql(on_postgres: type[OnPostgres]) -> None:
    drive(on_postgres, examples=400, slow=True)
    came_to_all(on_postgres)
