"""One step of a run: decide as whom, open, send, close; recover what an earlier attempt left open."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Row

from identity import accounts, leases
from identity.connections import connection_for
from identity.coordinator import Coordinator
from identity.errors import GrantRevoked, ReauthRequired, Unavailable
from identity.http import NoAnswer, NotSent
from identity.ids import Ids
from identity.model import (
    AccessPattern,
    AccountState,
    Effect,
    LeaseRequest,
    NeedsRefresh,
    PrincipalKind,
    ProviderConnection,
)
from identity.principals import service_principal
from identity.policy import Decision, Denied, decide
from identity.store import CommitUnknown, Store
from identity.vault import Vault
from pipeline import metrics
from pipeline.action import (
    SEARCHES,
    Action,
    Call,
    Judgement,
    Recovery,
    Response,
    Result,
    UnreadableAnswer,
    Verdict,
)
from pipeline.interruption import AskOperator, RunAgain, RunEnded
from pipeline.ledger import steps as ledger
from pipeline.ledger.jobs import ClaimedJob
from pipeline.ledger.steps import Adopted, Closing, Ended, Intent, OnceMismatch, Opened
from pipeline.run import ActionFailed, StepRefused, compare
from pipeline.states import AttemptState, StepState
from pipeline.upstream import Upstream
from pipeline.workflow import SERVICE, USER, Who, Workflow

R = TypeVar("R", bound=Result)

# The principal of a step that nobody may do; it is stored with the refusal.
NOBODY = Decision(kind=PrincipalKind.SERVICE, pattern=AccessPattern.SERVICE, reason="refused")
REPEATS = frozenset({Recovery.IDEMPOTENT, Recovery.KEYED})


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """How long things may take, and how often they are tried."""

    send_within: timedelta = timedelta(seconds=5)  # from before the opening's commit to the socket
    call_deadline: timedelta = timedelta(seconds=20)  # total, of one HTTP call
    token_margin: timedelta = timedelta(minutes=2)  # a token nearer its end than this is refreshed first
    attempts: int = 10
    backoff: timedelta = timedelta(seconds=1)
    backoff_cap: timedelta = timedelta(minutes=5)
    yield_after: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True)
class Services:
    """What every step needs; opened once a process."""

    store: Store
    vault: Vault
    coordinator: Coordinator
    upstream: Upstream
    ids: Ids
    settings: StepSettings
    reached: Callable[[str], None]  # named crash points: a no-op outside tests


class StepRunner:
    """Carries out the steps of one run of one job."""

    def __init__(self, services: Services, workflow: Workflow, job: ClaimedJob, stored: Mapping[int, Row[Any]]) -> None:
        self._services = services
        self._workflow = workflow
        self._job = job
        self._stored = stored
        self._began = time.monotonic()
        self._new_steps = 0
        self._connections: dict[str, tuple[ProviderConnection, str]] = {}

    def perform(self, position: int, occurrence: int, action: Action[R], *, named: Who | None, once: str | None) -> R:
        stored = self._stored.get(position)
        name, as_named, digest = action.action_name(), _named(named), action.request_hash()
        if stored is not None:
            compare(stored._mapping, action=name, occurrence=occurrence, named=as_named, request_hash=digest)
            match StepState(stored.state):
                case StepState.DONE:
                    return action.result.model_validate(stored.result)  # type: ignore[return-value]
                case StepState.REFUSED | StepState.SKIPPED:
                    raise StepRefused(stored.error or stored.reason)
                case StepState.FAILED:
                    raise ActionFailed(stored.error or stored.reason)
        elif self._new_steps and time.monotonic() - self._began > self._services.settings.yield_after.total_seconds():
            raise RunAgain("yielded after its time at a step boundary", delay=timedelta())
        self._new_steps += 1
        attempt = _Step(self, action, position, occurrence, as_named, named, once, digest, stored)
        return attempt.carry_out()

    def sleep(self, position: int, occurrence: int, duration: timedelta) -> None:
        digest = sha256(f"sleep {duration.total_seconds()}".encode()).hexdigest()
        stored = self._stored.get(position)
        if stored is not None:
            compare(stored._mapping, action="run.sleep", occurrence=occurrence, named="policy", request_hash=digest)
            if stored.state == StepState.DONE:
                return
        step = stored.id if stored else self._services.ids("step")
        slept = self._services.store.write(
            lambda c: ledger.sleep(
                c,
                self._job,
                step=step,
                position=position,
                occurrence=occurrence,
                request_hash=digest,
                duration=duration,
            )
        )
        if not slept:
            raise RunEnded("asleep")

    def through(self, provider: str) -> tuple[ProviderConnection, str]:
        """The provider connection of the tenant for *provider*, and the tenant's service principal."""
        found = self._connections.get(provider)
        if found is None:

            def look(c: Connection) -> tuple[ProviderConnection, str]:
                tenant = self._job.tenant
                return connection_for(c, tenant, provider), service_principal(c, tenant).id

            found = self._connections[provider] = self._services.store.read(look)
        return found


class _Step:
    """One step being carried out."""

    def __init__(
        self,
        runner: StepRunner,
        action: Action[Any],
        position: int,
        occurrence: int,
        as_named: str,
        named: Who | None,
        once: str | None,
        digest: str,
        stored: Row[Any] | None,
    ) -> None:
        self._services = runner._services
        self._settings = runner._services.settings
        self._job = runner._job
        self._workflow = runner._workflow
        self._action = action
        self._position = position
        self._occurrence = occurrence
        self._as_named = as_named
        self._named = named
        self._once = once
        self._digest = digest
        self._id: str = stored.id if stored is not None else runner._services.ids("step")
        self._provider_connection, self._service = runner.through(action.facts.provider)
        self._attempts: list[Row[Any]] = []
        if stored is not None:
            self._attempts = self._services.store.read(lambda c: ledger.attempts_of(c, self._id))
        self._made = len(self._attempts)
        self._call = call_of(self._job.id, self._id)
        self._decision: Decision | None = None

    def carry_out(self) -> Any:
        decision = self._decide()
        if isinstance(decision, Denied):
            now = datetime.now(UTC)
            intent = self._intent(NOBODY, purpose="call", after_generation=0, margin=timedelta())
            self._services.store.write(lambda c: ledger.refuse(c, intent, reason=decision.reason, now=now))
            metrics.STEPS.labels(self._action.action_name(), "none", "refused").inc()
            raise StepRefused(decision.reason)
        self._decision = decision
        self._recover()
        calls = [a for a in self._attempts if a.purpose == "call"]
        unknown = any(a.state in (AttemptState.UNKNOWN, AttemptState.OPEN) for a in calls)
        if unknown and not self._repeats and self._action.facts.recovery in SEARCHES:
            found = self._attempt("probe")
            if found is not None:
                return found
        return self._attempt("call")

    @property
    def _repeats(self) -> bool:
        return self._action.facts.effect is Effect.READ or self._action.facts.recovery in REPEATS

    def _decide(self) -> Decision | Denied:
        declared = self._workflow.uses.get(type(self._action), Who(0))
        return decide(
            action=self._action.action_name(),
            effect=self._action.facts.effect,
            attribution=self._action.facts.attribution,
            declared=frozenset(
                kind for who, kind in ((USER, PrincipalKind.USER), (SERVICE, PrincipalKind.SERVICE)) if declared & who
            ),
            named={None: None, USER: PrincipalKind.USER, SERVICE: PrincipalKind.SERVICE}[self._named],
            user_triggered=self._job.triggered,
            has_user=self._job.user is not None,
        )

    def _recover(self) -> None:
        """Deal with attempts that have no outcome: wait until they are settled, ask, or leave them to probe or repeat."""
        now = self._services.store.read(ledger.clock)
        for attempt in self._attempts:
            if attempt.purpose != "call" or attempt.state not in (AttemptState.OPEN, AttemptState.UNKNOWN):
                continue
            if attempt.settled_by > now:
                # The call may still be on the wire, in a paused worker's hands.
                raise RunAgain("an earlier attempt is not settled yet", delay=attempt.settled_by - now)
            if attempt.state == AttemptState.OPEN:
                self._services.store.write(lambda c, a=attempt: ledger.settle(c, a, now=now))
            if self._action.facts.recovery is Recovery.ASK and self._action.facts.effect is not Effect.READ:
                raise AskOperator(
                    f"{self._action.action_name()} was sent and no answer came; look at {self._action.facts.provider}, "
                    f"then run `aswhom jobs resolve {self._job.id} --effect` or `--no-effect`"
                )

    def _intent(self, decision: Decision, *, purpose: str, after_generation: int, margin: timedelta) -> Intent:
        principal = self._job.user if decision.kind is PrincipalKind.USER and self._job.user else self._service
        connection = self._provider_connection.id
        self._made += 1
        return Intent(
            step=self._id,
            attempt=self._services.ids("att"),
            job=self._job,
            position=self._position,
            action=self._action.action_name(),
            occurrence=self._occurrence,
            named=self._as_named,
            decision=decision,
            principal=principal,
            provider=self._provider_connection.provider,
            connection=connection,
            new_account=self._services.ids("acc"),
            request_hash=self._digest,
            parameters=self._action.model_dump(mode="json"),
            once=self._once,
            purpose=purpose,
            number=self._made,
            repeats_unknown=purpose == "probe" or self._repeats,
            lease=LeaseRequest(
                tenant=self._job.tenant,
                connection=connection,
                agent=self._job.agent,
                principal=principal,
                accepted=self._job.accepted,
                scopes=self._action.facts.scopes,
                usable_until=datetime.now(UTC) + margin,
                after_generation=after_generation,
            ),
            send_within=self._settings.send_within,
            deadline=self._settings.call_deadline,
        )

    def _attempt(self, purpose: str) -> Any:
        """Open, send and close until the attempt has an outcome; refresh the token in between where that is needed."""
        assert self._decision is not None  # noqa: S101 - set by carry_out
        margin, after_generation, refused = self._settings.token_margin, 0, 0
        for _ in range(8):
            intent = self._intent(self._decision, purpose=purpose, after_generation=after_generation, margin=margin)
            began = time.monotonic()
            match self._open(intent):
                case Adopted(result=result):
                    metrics.STEPS.labels(intent.action, str(self._decision.pattern), "adopted").inc()
                    return self._action.result.model_validate(result)
                case Ended(reason=reason):
                    raise RunEnded(reason)
                case OnceMismatch(owner=owner):
                    reason = f"the once key {self._once!r} was used by job {owner} with other parameters"
                    now = datetime.now(UTC)
                    self._services.store.write(lambda c, i=intent, r=reason: ledger.refuse(c, i, reason=r, now=now))
                    raise StepRefused(reason)
                case NeedsRefresh(account=account, generation=generation):
                    if self._refresh(account, generation) <= generation:
                        # The provider is away for the moment: the current token serves until it really ends.
                        margin = self._settings.send_within + self._settings.call_deadline
                    continue
                case Opened(lease=lease):
                    pass
            answer = self._send(intent, lease, began, purpose)
            if isinstance(answer, Response) and self._judge(answer, purpose).verdict is Verdict.UNAUTHORIZED:
                self._close(
                    intent,
                    Closing(
                        attempt=intent.attempt,
                        state=AttemptState.NO_EFFECT,
                        step_state=StepState.OPEN,
                        status=answer.status,
                        error="the token was refused",
                    ),
                )
                if refused and lease.generation > refused:
                    self._give_up_account(lease.account, intent)
                refused = after_generation = lease.generation
                continue
            return self._conclude(intent, answer, purpose)
        raise Unavailable("the token was renewed again and again without an opening", retry_after=timedelta(seconds=30))

    def _open(self, intent: Intent) -> ledger.OpenOutcome:
        try:
            return self._services.store.write(lambda c: ledger.open_attempt(c, intent))
        except CommitUnknown:
            # Whether the intent is there is not known, so nothing is sent; if it is there, it had no effect.
            closing = Closing(
                attempt=intent.attempt,
                state=AttemptState.NO_EFFECT,
                step_state=StepState.OPEN,
                error="not sent: commit unknown",
            )
            if self._services.store.read(lambda c: ledger.attempt_state(c, intent.attempt)) is not None:
                self._close(intent, closing)
            raise RunAgain("the opening's commit was not confirmed", delay=self._settings.backoff) from None

    def _refresh(self, account: str, generation: int) -> int:
        try:
            return self._services.coordinator.refresh(account, after_generation=generation)
        except (ReauthRequired, GrantRevoked):
            return generation + 1  # the account's state says so by now: the next opening parks or ends the run

    def _send(self, intent: Intent, lease: Any, began: float, purpose: str) -> Response | NotSent | NoAnswer:
        token = leases.open_token(self._services.vault, self._job.tenant, lease)
        request = self._action.probe(self._call) if purpose == "probe" else self._action.request(self._call)
        self._services.reached("before_call")
        if time.monotonic() - began > intent.send_within.total_seconds():
            return NotSent(reason="the time to send had passed")
        answer = self._services.upstream.send(
            request,
            api_url=self._provider_connection.api_url,
            token=token,
            attempt=intent.attempt,
            idempotency_key=self._call.idempotency_key,
            deadline=intent.deadline,
        )
        self._services.reached("after_call")
        return answer

    def _judge(self, answer: Response, purpose: str) -> Judgement:
        return self._action.judge(answer)

    def _conclude(self, intent: Intent, answer: Response | NotSent | NoAnswer, purpose: str) -> Any:
        reads = purpose == "probe" or self._action.facts.effect is Effect.READ
        status = answer.status if isinstance(answer, Response) else None
        request_id = (
            answer.headers.get("x-github-request-id") or answer.headers.get("x-request-id")
            if isinstance(answer, Response)
            else None
        )
        judgement: Judgement
        result: Result | None = None
        match answer:
            case NotSent(reason=reason):
                judgement = Judgement(verdict=Verdict.RETRY, reason=reason)
            case NoAnswer(reason=reason):
                judgement = Judgement(verdict=Verdict.RETRY if reads else Verdict.UNKNOWN, reason=reason)
            case Response():
                judgement = self._judge(answer, purpose)
                if judgement.verdict is Verdict.UNKNOWN and reads:
                    judgement = Judgement(verdict=Verdict.RETRY, reason=judgement.reason)
                if judgement.verdict is Verdict.SUCCESS:
                    try:
                        result = (
                            self._action.found(answer, self._call) if purpose == "probe" else self._action.read(answer)
                        )
                    except (UnreadableAnswer, ValueError, KeyError, TypeError) as error:
                        verdict = Verdict.FAILED if reads else Verdict.UNKNOWN
                        judgement = Judgement(
                            verdict=verdict, reason=f"the answer could not be read: {type(error).__name__}"
                        )
        base: dict[str, Any] = {"attempt": intent.attempt, "status": status, "upstream_request_id": request_id}
        match judgement.verdict:
            case Verdict.SUCCESS if purpose == "probe":
                return self._close_probe(intent, result, base)
            case Verdict.SUCCESS:
                assert result is not None  # noqa: S101 - read() returned
                self._close(
                    intent,
                    Closing(
                        **base,
                        state=AttemptState.EFFECT,
                        step_state=StepState.DONE,
                        result=result.model_dump(mode="json"),
                        external_id=self._action.external_id(result),
                        resolves=AttemptState.ADOPTED,
                    ),
                )
                self._services.reached("after_commit")
                self._count("done")
                return result
            case Verdict.FAILED if purpose == "call":
                self._close(
                    intent,
                    Closing(**base, state=AttemptState.NO_EFFECT, step_state=StepState.FAILED, error=judgement.reason),
                )
                self._count("failed")
                raise ActionFailed(f"{intent.action} failed: {judgement.reason}")
            case Verdict.UNKNOWN:
                self._close(
                    intent,
                    Closing(**base, state=AttemptState.UNKNOWN, step_state=StepState.UNKNOWN, error=judgement.reason),
                )
                self._count("unknown")
                raise RunAgain(
                    f"{intent.action} was sent and its outcome is not known: {judgement.reason}",
                    delay=intent.send_within + intent.deadline,
                )
            case _:
                return self._retry(intent, judgement, base)

    def _close_probe(self, intent: Intent, found: Result | None, base: Mapping[str, Any]) -> Any:
        if found is None:
            self._close(
                intent,
                Closing(
                    **base, state=AttemptState.NO_EFFECT, step_state=StepState.OPEN, resolves=AttemptState.NO_EFFECT
                ),
            )
            return None
        self._close(
            intent,
            Closing(
                **base,
                state=AttemptState.NO_EFFECT,
                step_state=StepState.DONE,
                result=found.model_dump(mode="json"),
                external_id=self._action.external_id(found),
                resolves=AttemptState.ADOPTED,
            ),
        )
        self._count("done")
        return found

    def _retry(self, intent: Intent, judgement: Judgement, base: Mapping[str, Any]) -> Any:
        """Nothing was done: back to the queue, or failed when the attempts are spent. A probe never fails its step."""
        spent = intent.purpose == "call" and intent.number >= self._settings.attempts
        error = judgement.reason if not spent else f"{judgement.reason}, after {intent.number} attempts"
        self._close(
            intent,
            Closing(
                **base,
                state=AttemptState.NO_EFFECT,
                step_state=StepState.FAILED if spent else StepState.OPEN,
                error=error,
            ),
        )
        if spent:
            self._count("failed")
            raise ActionFailed(f"{intent.action} failed: {error}")
        growing = self._settings.backoff * 2 ** min(intent.number - 1, 20)
        delay = min(growing, self._settings.backoff_cap) * random.uniform(0.5, 1)  # noqa: S311 - spreads rivals
        raise RunAgain(f"{intent.action}: {judgement.reason}", delay=max(delay, judgement.retry_after or timedelta()))

    def _close(self, intent: Intent, closing: Closing) -> None:
        """Commit the outcome; after a lost commit look first, since an outcome is closed once."""
        for _ in range(5):
            try:
                self._services.store.write(lambda c: ledger.close_attempt(c, intent, closing))
                return
            except CommitUnknown:
                state = self._services.store.read(lambda c: ledger.attempt_state(c, closing.attempt))
                if state == closing.state:
                    return
        raise Unavailable("the ledger did not confirm an outcome; housekeeping will settle the attempt")

    def _give_up_account(self, account: str, intent: Intent) -> None:
        """Two generations were refused upstream: a person must reconnect. Nothing is revoked by that."""
        now = datetime.now(UTC)
        reason = "the provider refused a freshly renewed token"
        self._services.store.write(
            lambda c: accounts.move_account(c, account, to=AccountState.NEEDS_RECONNECT, reason=reason, now=now)
        )

    def _count(self, outcome: str) -> None:
        assert self._decision is not None  # noqa: S101 - set by carry_out
        metrics.STEPS.labels(self._action.action_name(), str(self._decision.pattern), outcome).inc()


def _named(named: Who | None) -> str:
    return {None: "policy", USER: "user", SERVICE: "service"}[named]


def call_of(job: str, step: str) -> Call:
    """What makes a step's requests recognisable: the same at every attempt."""
    digest = sha256(f"{job}\x00{step}".encode()).digest()
    return Call(
        idempotency_key=digest.hex(),
        client_id=str(UUID(bytes=digest[:16], version=4)),
        marker=f"<!-- aswhom:{digest.hex()[:32]} -->",
    )
