"""The attempts of one step: open by the rule, send before it is too late, close with what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any
from uuid import UUID

from structlog.contextvars import bound_contextvars

from identity.capability.model import Audience
from identity.death import infer_death
from identity.errors import GrantRevoked, ReauthRequired, Unavailable
from identity.http import NoAnswer, NotSent
from identity.model import Effect, Leased, LeaseRequest, NeedsRefresh, ProviderConnection
from identity.policy import Decision
from identity.store import CommitUnknown
from pipeline import metrics
from pipeline.action import Action, Call, Recovery, Request, Response, Verdict
from pipeline.conclusion import CALL, PROBE, conclude
from pipeline.draw import Draw
from pipeline.entitlement import header, wanted
from pipeline.exchange import Exchange, close_call, close_probe, commit
from pipeline.interruption import RunAgain, RunEnded
from pipeline.ledger import openings, steps
from pipeline.ledger.closings import Closing
from pipeline.ledger.intents import (
    Adopted,
    ApprovalMoved,
    Approved,
    Ended,
    Intent,
    OnceMismatch,
    Opened,
    OpenOutcome,
    PolicyMoved,
    Skipped,
)
from pipeline.ledger.jobs import ClaimedJob
from pipeline.run import StepRefused, StepSkipped
from pipeline.services import Services
from pipeline.states import AttemptState, StepState

REPEATS = frozenset({Recovery.IDEMPOTENT, Recovery.KEYED})
OPENINGS = 8  # of one attempt: refreshes and refused tokens in a row, before the job tries again later


@dataclass(frozen=True, kw_only=True)
class StepAtHand:
    """What all attempts of a step have in common."""

    id: str
    job: ClaimedJob
    action: Action[Any]
    position: int
    occurrence: int
    named: str
    once: str | None
    request_hash: str
    decision: Decision
    principal: str
    through: ProviderConnection
    opened_at: datetime
    patience: timedelta = timedelta()  # how long "later" is taken for an answer, whatever number of attempts that makes
    may_skip: bool = False
    audience: Audience | None = None  # whom a capability is for, which the step runs by
    resends: bool = False  # an attempt of unknown outcome carried a capability that lives
    approval: Approved | None = None

    @property
    def name(self) -> str:
        return self.action.action_name()

    @property
    def repeats(self) -> bool:
        """Whether an attempt of unknown outcome may simply be made again."""
        return self.resends or self.action.facts.effect is Effect.READ or self.action.facts.recovery in REPEATS

    def request(self, purpose: str) -> Request:
        """What a call or a probe sends: the same at every attempt."""
        return self.action.probe(self.call) if purpose == PROBE else self.action.request(self.call)

    @property
    def call(self) -> Call:
        """What makes the step's requests recognisable: the same at every attempt."""
        digest = sha256(f"{self.job.id}\x00{self.id}".encode()).digest()
        return Call(
            idempotency_key=digest.hex(),
            client_id=str(UUID(bytes=digest[:16], version=4)),
            marker=f"<!-- aswhom:{digest.hex()[:32]} -->",
            opened_at=self.opened_at,
        )

    def intent(
        self,
        services: Services,
        *,
        purpose: str,
        number: int,
        after_generation: int = 0,
        ahead: bool = True,
    ) -> Intent:
        """A new attempt's intent, with ids of its own."""
        return Intent(
            step=self.id,
            attempt=services.ids("att"),
            job=self.job,
            position=self.position,
            action=self.name,
            occurrence=self.occurrence,
            named=self.named,
            decision=self.decision,
            principal=self.principal,
            provider=self.through.provider,
            connection=self.through.id,
            new_account=services.ids("acc"),
            request_hash=self.request_hash,
            parameters=self.action.model_dump(mode="json"),
            once=self.once,
            purpose=purpose,
            number=number,
            repeats_unknown=purpose == PROBE or self.repeats,
            lease=LeaseRequest(
                tenant=self.job.tenant,
                connection=self.through.id,
                agent=self.job.agent,
                principal=self.principal,
                accepted=self.job.accepted,
                scopes=self.action.facts.scopes,
                ahead=ahead,
                after_generation=after_generation,
            ),
            send_within=services.settings.send_within,
            consent_wait=services.settings.consent_wait,
            deadline=services.settings.call_deadline,
            may_skip=self.may_skip,
            capability=wanted(services, self, purpose),
            resends=self.resends,
            approval=self.approval,
        )


def attempt(services: Services, step: StepAtHand, *, number: int) -> Any:
    """Carry the step out and return its result. Raises ActionFailed, StepRefused or an Interruption."""
    with bound_contextvars(step=step.id):
        exchange = _exchange(services, step, CALL, number)
        if not isinstance(exchange, Exchange):
            return exchange.result
        return close_call(exchange)


def probe(services: Services, step: StepAtHand, *, number: int) -> Any | None:
    """Search for the effect of an earlier attempt: its result, or None where it had none."""
    with bound_contextvars(step=step.id):
        exchange = _exchange(services, step, PROBE, number)
        if not isinstance(exchange, Exchange):
            return exchange.result
        return close_probe(exchange)


def _exchange(services: Services, step: StepAtHand, purpose: str, number: int) -> Exchange | Adopted:
    """Draw on the upstream's budget, open and send."""
    draw = Draw(services, step)
    try:
        return _open_and_send(services, step, purpose, number, draw)
    finally:
        draw.give_back()


def _open_and_send(services: Services, step: StepAtHand, purpose: str, number: int, draw: Draw) -> Exchange | Adopted:
    """Renew the token in between where it is too old, or was refused."""
    ahead, after_generation, forced = True, 0, False
    for _ in range(OPENINGS):
        intent = step.intent(services, purpose=purpose, number=number, after_generation=after_generation, ahead=ahead)
        draw.take()
        began = time.monotonic()
        match _open(services, intent):
            case Adopted() as adopted:
                metrics.STEPS.labels(step.name, str(step.decision.pattern), "adopted").inc()
                return adopted
            case Ended(reason=reason, moved=moved):
                raise RunEnded(reason, moved=moved)
            case Skipped(reason=reason):
                metrics.STEPS.labels(step.name, str(step.decision.pattern), "skipped").inc()
                raise StepSkipped(reason)
            case OnceMismatch(owner=owner):
                reason = f"the once key {step.once!r} was used by job {owner} with other parameters"
                raise refused(services, intent, reason)
            case PolicyMoved():
                raise policy_moved()
            case ApprovalMoved():
                raise RunAgain("the approval does not hold any more", delay=timedelta())
            case NeedsRefresh(account=account, generation=generation):
                forced = after_generation >= generation
                ahead = _refresh(services, account, generation, refused=forced) > generation
                continue
            case Opened() as opened:
                number += 1
        answer = _send(services, step, intent, opened, began)
        conclusion = conclude(step.action, step.call, purpose, answer)
        draw.tell(answer, conclusion)
        exchange = Exchange(services=services, step=step, intent=intent, began=began, conclusion=conclusion)
        if conclusion.verdict is not Verdict.UNAUTHORIZED:
            return exchange
        lease = opened.lease
        if lease is None:  # there is nothing to renew: the next attempt has another capability
            return replace(exchange, conclusion=replace(conclusion, verdict=Verdict.RETRY))
        exchange.close(AttemptState.NO_EFFECT, StepState.OPEN, error="the token was refused")
        if forced:
            _infer_death(services, lease)
        # If it was not the newest, another's refresh has killed it, and the next opening has the newest.
        after_generation, forced = lease.generation, False
    raise Unavailable("the token was renewed again and again without success", retry_after=timedelta(seconds=30))


def refused(services: Services, intent: Intent, reason: str) -> StepRefused | RunAgain:
    """Record that a step may not be done, and say so to the workflow."""
    recorded = services.store.write(partial(openings.refuse, intent=intent, reason=reason, now=datetime.now(UTC)))
    if not recorded:
        return policy_moved()
    metrics.STEPS.labels(intent.action, "none", "refused").inc()
    return StepRefused(reason)


def policy_moved() -> RunAgain:
    return RunAgain("the tenant's policy changed before the step opened", delay=timedelta())


def _open(services: Services, intent: Intent) -> OpenOutcome:
    try:
        return services.store.write(partial(openings.open_attempt, intent=intent))
    except CommitUnknown:
        # Whether the intent is there is not known, so nothing is sent. If it is there, it had no effect.
        if services.store.read(partial(steps.attempt_state, attempt=intent.attempt)) is not None:
            not_sent = Closing(
                attempt=intent.attempt, state=AttemptState.NO_EFFECT, step_state=StepState.OPEN, error="not sent"
            )
            commit(services, intent, not_sent)
        raise RunAgain("the opening's commit was not confirmed", delay=services.settings.backoff) from None


def _refresh(services: Services, account: str, generation: int, *, refused: bool) -> int:
    """The generation after a refresh; the account's state tells the next opening of a refusal."""
    try:
        return services.coordinator.refresh(account, after_generation=generation, refused=refused)
    except (ReauthRequired, GrantRevoked):
        return generation + 1


def _send(
    services: Services, step: StepAtHand, intent: Intent, opened: Opened, began: float
) -> Response | NotSent | NoAnswer:
    send_before = began + intent.send_within.total_seconds()
    shown = header(services, step, intent, opened, send_before=send_before)
    if isinstance(shown, NotSent):
        return shown
    services.reached("before_call")
    answer = services.upstream.send(
        step.request(intent.purpose),
        api_url=step.through.api_url,
        authorization=shown,
        attempt=intent.attempt,
        idempotency_key=step.call.idempotency_key,
        deadline=intent.deadline,
        send_before=send_before,
        # On a kept-alive connection a server's close at the wrong moment leaves an unknown, here one for a person.
        fresh=step.action.facts.recovery is Recovery.ASK and not step.repeats,
    )
    services.reached("after_call")
    return answer


def _infer_death(services: Services, lease: Leased) -> None:
    """The token was renewed because of a refusal, and refused again: no further refresh will help."""
    infer = partial(
        infer_death,
        account=lease.account,
        generation=lease.generation,
        audit_id=services.ids("aud"),
        now=datetime.now(UTC),
    )
    try:
        services.store.write(infer)
    except CommitUnknown:
        raise RunAgain("whether the account waits for a person is not known", delay=services.settings.backoff) from None
