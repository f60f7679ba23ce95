"""Risk of a workflow's declarations: six properties of the four access patterns (docs/policy.md).

A grade belongs to its pattern: nothing else moves it. Which patterns are used, for what, and within which bounds
follows from `uses`, the actions' facts, the tenant's policy and the providers' profiles, so a changed declaration
changes the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any

from identity.model import AccessPattern, PrincipalKind
from identity.money import Money
from identity.policy.decision import Decision, decide
from identity.policy.rules import Policy, Question, TriggerKind
from identity.providers import PROFILES, profile_of
from pipeline.action import Action
from pipeline.authoring.declared_workflow import Workflow
from pipeline.policy.question import KINDS, question_of_declaration


class Property(StrEnum):
    ATTRIBUTION = "user attribution"
    BLAST_RADIUS = "blast radius"
    LIFE_CYCLE = "token life-cycle overhead"
    REVOCATION = "consent revocation"
    ISOLATION = "tenant isolation"
    SIMPLICITY = "operational simplicity"


DELEGATED, SERVICE, HYBRID, CAPABILITY = AccessPattern
GRADES: Mapping[Property, Mapping[AccessPattern, str]] = {
    Property.ATTRIBUTION: {
        DELEGATED: "high",
        SERVICE: "low",
        HYBRID: "high, contextual",
        CAPABILITY: "high, per action",
    },
    Property.BLAST_RADIUS: {DELEGATED: "low", SERVICE: "high", HYBRID: "medium", CAPABILITY: "very low"},
    Property.LIFE_CYCLE: {DELEGATED: "high", SERVICE: "low", HYBRID: "medium", CAPABILITY: "medium"},
    Property.REVOCATION: {
        DELEGATED: "granular, per user",
        SERVICE: "coarse, everything",
        HYBRID: "granular for user-bound actions",
        CAPABILITY: "granular, per action",
    },
    Property.ISOLATION: {DELEGATED: "strong", SERVICE: "moderate", HYBRID: "strong", CAPABILITY: "strong"},
    Property.SIMPLICITY: {DELEGATED: "moderate", SERVICE: "high", HYBRID: "moderate", CAPABILITY: "moderate"},
}


@dataclass(frozen=True, kw_only=True)
class RiskRow:
    """One property of one workflow: its overall grade, and the grade and evidence of each of the four patterns."""

    workflow: str
    pattern: AccessPattern
    property: Property
    grade: str
    patterns: Mapping[AccessPattern, str | None]  # None: no step runs by it


@dataclass(frozen=True, kw_only=True)
class _Step:
    action: type[Action[Any]]
    kind: PrincipalKind
    pattern: AccessPattern
    bounds: frozenset[str]  # the limits and approvals that hold for it, in words


def risk_table(workflow: Workflow, policy: Policy) -> list[RiskRow]:
    """Return the six lines of a workflow under a tenant's policy; none if nothing of it may run."""
    steps = [step for action in workflow.uses for step in _steps(workflow, action, policy)]
    used = {pattern: [one for one in steps if one.pattern is pattern] for pattern in (DELEGATED, SERVICE, CAPABILITY)}
    present = [pattern for pattern, these in used.items() if these]
    if not present:
        return []
    whole = present[0] if len(present) == 1 else HYBRID
    lines = []
    for one in Property:
        evidence = {pattern: _evidence(one, pattern, used[pattern]) for pattern in present}
        if whole is HYBRID:
            evidence[HYBRID] = " and ".join(present)
        patterns = {
            each: f"{GRADES[one][each]}: {evidence[each]}" if each in evidence else None for each in AccessPattern
        }
        lines.append(
            RiskRow(workflow=workflow.name, pattern=whole, property=one, grade=GRADES[one][whole], patterns=patterns)
        )
    return lines


def _steps(workflow: Workflow, action: type[Action[Any]], policy: Policy) -> list[_Step]:
    """Return the possible steps of an action by pattern, for any trigger; amounts are assumed within the limits."""
    found: dict[tuple[PrincipalKind, AccessPattern], _Step] = {}
    for who, kind in KINDS.items():
        for trigger in TriggerKind:
            if not workflow.uses[action] & who:
                continue
            question = question_of_declaration(workflow, action, kind, trigger)
            decision = decide(_within_limits(question, policy), policy)
            if isinstance(decision, Decision):
                key = kind, decision.pattern
                bounds = _bounds(question, policy) | (found[key].bounds if key in found else frozenset())
                found[key] = _Step(action=action, kind=kind, pattern=decision.pattern, bounds=bounds)
    return list(found.values())


def _bounds(question: Question, policy: Policy) -> frozenset[str]:
    """Return the limits and approvals of the policy's entries about the question, whatever its amount."""
    rules = [one for one in policy.rules if one.when.fits(question)]
    limits = [one.limit for one in policy.allowances if one.when.fits(question)]
    limits += [one.max_amount for one in rules]
    approvals = {
        f"approved by {one.approval.quorum} of {', '.join(sorted(one.approval.approvers))}"
        + (f" above {one.above}" if one.above is not None else "")
        for one in rules
        if one.approval is not None
    }
    return frozenset(f"up to {one}" for one in limits if one is not None) | approvals


def _within_limits(question: Question, policy: Policy) -> Question:
    """Return the question with a zero amount, in the currency of the policy's entries about it."""
    limits = [one.limit for one in policy.allowances if one.when.fits(question)]
    limits += [one.max_amount for one in policy.rules if one.when.fits(question)]
    for limit in limits:
        if limit is not None:
            return replace(question, amount=Money(amount=Decimal(0), currency=limit.currency))
    return question


def _evidence(property: Property, pattern: AccessPattern, steps: Sequence[_Step]) -> str:
    providers = sorted({one.action.facts.provider for one in steps})
    match property:
        case Property.ATTRIBUTION:
            return ", ".join(sorted({f"{one.action.action_name()} as the {one.kind}" for one in steps}))
        case Property.BLAST_RADIUS:
            bounds = sorted({f"{one.action.action_name()} {bound}" for one in steps for bound in one.bounds})
            return "; ".join([*(_reach(provider, pattern, steps) for provider in providers), *bounds])
        case Property.LIFE_CYCLE:
            return _life_cycle(pattern, providers)
        case Property.REVOCATION | Property.ISOLATION:
            whose = {DELEGATED: "each person's account", SERVICE: "the tenant's one account", CAPABILITY: "each token"}
            return f"{whose[pattern]} at {', '.join(providers)}"
        case Property.SIMPLICITY:
            return f"{len({one.action for one in steps})} action(s) at {len(providers)} provider(s)"


def _reach(provider: str, pattern: AccessPattern, steps: Sequence[_Step]) -> str:
    if pattern is CAPABILITY:
        return f"one action on one resource at {provider}"
    there = [one.action for one in steps if one.action.facts.provider == provider]
    scopes = sorted({scope for action in there for scope in action.facts.scopes})
    whose = "what one person may" if pattern is DELEGATED else "what the tenant's service may"
    confined = sorted({action.action_name() for action in there if action.confined_to is not Action.confined_to})
    one_by_one = f", by an app's installation in one repository at a time for {', '.join(confined)}"
    return (
        f"{whose} at {provider}"
        + (f" ({', '.join(scopes)})" if scopes else "")
        + (one_by_one if confined and pattern is SERVICE else "")  # a person's token is never confined
    )


def _life_cycle(pattern: AccessPattern, providers: Sequence[str]) -> str:
    if pattern is CAPABILITY:
        return "one token for each action, minutes long"
    if pattern is SERVICE:
        return f"one credential a tenant at {', '.join(providers)}"
    rotating = [one for one in providers if profile_of(PROFILES, one).rotates]
    return f"a grant a person at {', '.join(providers)}" + (
        f"; refresh tokens rotate at {', '.join(rotating)}" if rotating else ""
    )
