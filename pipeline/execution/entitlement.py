"""The credential for a step's call: an account's token, or our own capability for this one request."""

from __future__ import annotations

from identity.accounts import leases
from identity.capability.model import CapabilityRequest
from identity.capability.verifier import Limit
from identity.connections.authorization import authorization
from identity.errors import Misconfigured
from identity.http.client import NotSent
from identity.metrics import CAPABILITIES_ISSUED
from identity.minting.confined_minting import Confinement
from identity.model import Effect, Leased, LeaseRequest
from identity.money import Money
from identity.secret import Secret
from pipeline.execution.services import Services
from pipeline.execution.step_at_hand import StepAtHand
from pipeline.jobs.intents import Intent, Opened
from pipeline.upstream import Written


def wanted_capability(services: Services, step: StepAtHand, written: Written | None) -> CapabilityRequest | None:
    """Return the capability a call or probe needs; None: it uses an account's token, or nothing will be sent."""
    if step.audience is None or written is None:
        return None
    return CapabilityRequest(
        id=services.ids("cap"),
        audience=step.audience,
        tenant=step.job.tenant,
        connection=step.through.id,
        agent=step.job.agent,
        principal=step.principal,
        accepted=step.job.accepted,
        job=step.job.id,
        step=step.id,
        action=step.name,
        resource=step.action.resource() or "",
        limit=_limit(step.action.money()),
        request_sha256=written.sha256(),
        approved_by=step.approval.by if step.approval else (),
        lifetime=services.settings.capability_lifetime,
    )


def mint_ahead(services: Services, step: StepAtHand, lease: LeaseRequest) -> None:
    """Mint the token for the action's one repository, if any, before the opening.

    Raises Misconfigured or Unavailable.
    """
    repository = step.action.confined_to()
    if repository is None or step.audience is not None:
        return
    services.confiner.mint_ahead(lease, repository=repository, reads=_reads(step))


def header(
    services: Services, step: StepAtHand, intent: Intent, opened: Opened, *, send_before: float
) -> tuple[str, str] | NotSent:
    """Return the header that authorizes the call. Called after the commit: the token is made or decrypted here.

    NotSent: there is no token for it now. *send_before* is on the monotonic clock.
    """
    if opened.lease is not None:
        token = _confined(services, step, opened.lease, send_before)
        if isinstance(token, NotSent):
            return token
        token = token or leases.open_token(services.vault, step.job.tenant, opened.lease)
        return authorization(step.through, token, token_type=opened.lease.token_type)
    if opened.capability is None or step.audience is None:
        raise Misconfigured(f"attempt {intent.attempt} has neither a lease nor a capability")
    token = services.issuer.sign(opened.capability, step.audience.algorithm)
    CAPABILITIES_ISSUED.labels("step").inc()
    return "Authorization", f"Bearer {token.reveal()}"


def _confined(services: Services, step: StepAtHand, lease: Leased, send_before: float) -> Secret | NotSent | None:
    """Return the token for the action's one repository, if it names one and the account supports that."""
    repository = step.action.confined_to()
    if repository is None:
        return None
    confinement = Confinement(
        account=lease.account,
        generation=lease.generation,
        repository=repository,
        scopes=step.action.facts.scopes,
    )
    token = services.confiner.token(confinement, send_before=send_before)
    if isinstance(token, NotSent) and token.final and _reads(step):
        return None  # the installation does not have the repository, but the account can read public ones
    return token


def _reads(step: StepAtHand) -> bool:
    return step.action.facts.effect is Effect.READ


def _limit(money: Money | None) -> Limit | None:
    """Return exactly the amount: policy has checked it, and no more may be allowed."""
    return None if money is None else Limit(amount=money.amount, currency=money.currency)
