"""Deciding what a delivery starts, from facts that its transaction has read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.authoring.matching import Considered, Match
from pipeline.deliveries.tenant import DeliveryTenant
from pipeline.jobs.tenant_setup import TenantSetup
from pipeline.model import DeliveryOutcome, LeftOut, SignedDelivery


@dataclass(frozen=True, kw_only=True)
class Start:
    """A job that a delivery starts."""

    job: str
    match: Match
    config: Mapping[str, Any]
    replayed_by: tuple[str, ...] = ()  # every name of the person who had the delivery replayed


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The jobs to start, and the outcome of the delivery. A signal or an answer gets its outcome later."""

    starts: Sequence[Start]
    outcome: DeliveryOutcome
    reason: str
    misread: Mapping[str, str]  # by the name of an enabled workflow: why it could not read the delivery
    left_out: LeftOut | None


def plan(
    delivery: SignedDelivery,
    whose: DeliveryTenant,
    here: TenantSetup | None,
    matches: Sequence[Match],
    misfits: Sequence[Considered],
    jobs: Sequence[str],
    *,
    idle: tuple[DeliveryOutcome, str],
) -> Plan:
    """Decide which jobs a delivery starts.

    *here*: None if it has no tenant or no workflow wants it. *jobs*: an id for each match. *idle*: the outcome and
    reason if no workflow wants it.
    """
    misread = {one.workflow.name: one.refusal for one in misfits if here and one.workflow.name in here.configs}
    starts, off = ([], []) if here is None else _switched_on(here, jobs, matches)

    if whose.trespassed is not None:
        outcome, reason = DeliveryOutcome.REFUSED, whose.refusal
    elif matches and here is None:
        outcome, reason = DeliveryOutcome.IGNORED, whose.refusal
    elif starts:
        outcome, reason = DeliveryOutcome.ACCEPTED, "; ".join((f"{len(starts)} job(s)", *misread.values()))
    elif misread:
        outcome, reason = DeliveryOutcome.UNRECOGNISED, "; ".join(misread.values())
    elif off:
        outcome, reason = DeliveryOutcome.IGNORED, "; ".join(off)
    elif delivery.answer is not None and whose.tenant is None:
        outcome, reason = DeliveryOutcome.REFUSED, whose.refusal
    else:
        outcome, reason = idle[0], whose.refusal if misfits and here is None else idle[1]
    left_out = LeftOut.MISREAD if starts and misread else None
    if matches and whose.shown_to is not None:
        left_out = LeftOut.UNLISTED
    return Plan(starts=starts, outcome=outcome, reason=reason, misread=misread, left_out=left_out)


def _switched_on(here: TenantSetup, ids: Sequence[str], matches: Sequence[Match]) -> tuple[list[Start], list[str]]:
    """Return a start for each match whose workflow the tenant has enabled, and the reasons for the rest."""
    starts: list[Start] = []
    reasons: list[str] = []
    for job, match in zip(ids, matches, strict=True):
        config = here.configs.get(match.workflow.name)
        if config is None:
            reasons.append(f"workflow {match.workflow.name} is not switched on for tenant {here.tenant}")
        else:
            starts.append(Start(job=job, match=match, config=config))
    return starts, reasons
