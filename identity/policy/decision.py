"""Decides as whom an action runs and under which constraints, or why it must not run.

Three questions in order: must it be attributable, was it triggered by a person or by background work, how sensitive is
it? Then the tenant's rules apply, which can only restrict. A principal named by the author can be refused but is never
replaced. The decision is pure and total: every question gets an answer, always the same under the same policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

from identity.model import AccessPattern, Effect, PrincipalKind
from identity.money import Money
from identity.policy.rules import Allowance, ApprovalNeed, Policy, Question, Rule, TriggerKind


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """Further constraints on the step."""

    max_amount: Money | None = None
    approvals: tuple[ApprovalNeed, ...] = ()  # all must be met


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The principal kind, access pattern and reason; stored with the intent and in the audit."""

    kind: PrincipalKind
    pattern: AccessPattern
    reason: str
    constraints: Constraints = field(default_factory=Constraints)
    policy: int = 0  # the policy version; 0 if the tenant has none of its own
    rules: tuple[str, ...] = ()  # names of the rules and allowances that apply to the step


@dataclass(frozen=True, kw_only=True)
class Denied:
    """A refusal of the step, with the reason; stored like a decision, for no principal."""

    kind: ClassVar[None] = None
    pattern: ClassVar[None] = None
    constraints: ClassVar[Constraints] = Constraints()
    reason: str
    policy: int = 0
    rules: tuple[str, ...] = ()


def decide(question: Question, policy: Policy) -> Decision | Denied:
    """Decide on one step."""
    rules = [rule for rule in policy.about(question.action) if rule.holds(question)]
    kind, reason = _chosen(question, rules)
    high_risk = question.effect is Effect.HIGH_RISK
    allowances = [one for one in policy.allowances if one.covers(question)] if high_risk else []
    names = (*(one.name for one in rules), *(one.name for one in allowances))
    why_not = _forbidden_by_facts(question, kind) or _forbidden_by_rules(question, kind, rules)
    if why_not is None and high_risk and not allowances:
        why_not = _not_allowed(question, policy)
    if why_not is not None:
        return Denied(reason=why_not, policy=policy.version, rules=names)
    said = _answers(question.attribution, question.trigger, question.effect)
    limits = [limit for limit in (_widest(allowances), *(rule.max_amount for rule in rules)) if limit is not None]
    return Decision(
        kind=kind,
        pattern=_pattern(question, kind, rules),
        reason=f"{reason}: {said}" + (f"; by the policy's {', '.join(map(repr, names))}" if names else ""),
        constraints=Constraints(
            max_amount=min(limits, key=lambda one: one.amount, default=None),  # of one currency, or it was refused
            approvals=tuple(rule.approval for rule in rules if rule.approval is not None),
        ),
        policy=policy.version,
        rules=names,
    )


@cache
def _answers(attribution: bool, trigger: TriggerKind, effect: Effect) -> str:
    """Return the answers to the three questions in words. There are twelve combinations."""
    triggered = "user-triggered" if trigger is TriggerKind.PERSON else "background"
    said = (triggered, effect.value.replace("_", " "))
    return ", ".join(("attribution required", *said) if attribution else said)


def _chosen(question: Question, rules: Sequence[Rule]) -> tuple[PrincipalKind, str]:
    """Return the kind that the author named, otherwise the one that policy picks, and why."""
    if question.named is not None:
        return question.named, "named by the request" if question.is_requested else "named by the workflow"
    kind, reason = _preference(question)
    for rule in rules:
        if rule.kinds is not None and kind not in rule.kinds:
            left = [other for other in PrincipalKind if _remains(question, other, rules)]
            if left:
                return left[0], f"the policy's rule {rule.name!r} leaves nobody else"
    return kind, reason


def _remains(question: Question, kind: PrincipalKind, rules: Sequence[Rule]) -> bool:
    return _forbidden_by_facts(question, kind) is None and all(
        rule.kinds is None or kind in rule.kinds for rule in rules
    )


def _preference(question: Question) -> tuple[PrincipalKind, str]:
    """Return the kind that the three questions pick, and why."""
    if question.attribution:
        return PrincipalKind.USER, "the action must be attributable to a person"
    if len(question.declared) == 1:
        (only,) = question.declared
        return only, "the only principal the workflow declares for it"
    if question.trigger is TriggerKind.BACKGROUND:
        return PrincipalKind.SERVICE, "background work runs as the service"
    if question.effect is Effect.READ:
        return PrincipalKind.SERVICE, "a read needs no person's authority"
    if question.has_user:
        return PrincipalKind.USER, "a person triggered a change, so it is made as them"
    return PrincipalKind.SERVICE, "who triggered it is not a known principal"


def _forbidden_by_facts(question: Question, kind: PrincipalKind) -> str | None:
    """Return why *kind* is forbidden regardless of the tenant's policy, or None."""
    action = question.action
    if kind not in question.declared:
        named = " or ".join(sorted(question.declared)) or "nobody"
        return f"{action} as {kind} was not declared: the workflow declares {named}"
    if question.attribution and kind is not PrincipalKind.USER:
        return f"{action} must be attributable to a person, so it does not run as {kind}"
    if kind is PrincipalKind.USER and not question.has_user:
        return f"{action} would run as the user, and no principal is linked to who that is"
    return None


def _forbidden_by_rules(question: Question, kind: PrincipalKind, rules: Sequence[Rule]) -> str | None:
    """Return why the tenant's rules forbid it as *kind*, or None."""
    for rule in rules:
        said = f"the policy's rule {rule.name!r}"
        if rule.deny is not None:
            return f"{said} forbids {question.action}: {rule.deny}"
        if rule.kinds is not None and kind not in rule.kinds:
            return f"{said} lets {question.action} run as {' or '.join(sorted(rule.kinds)) or 'nobody'} alone"
        if rule.max_amount is not None and (question.amount is None or question.amount.exceeds(rule.max_amount)):
            return f"{said} holds {question.action} to {rule.max_amount}, and this one {_amount(question)}"
    return None


def _widest(allowances: Sequence[Allowance]) -> Money | None:
    """Return the highest limit of the allowances that cover a step; None if unlimited, or if there are none."""
    limits = [one.limit for one in allowances if one.limit is not None]
    return max(limits, key=lambda one: one.amount) if limits and len(limits) == len(allowances) else None


def _not_allowed(question: Question, policy: Policy) -> str:
    limits = [str(one.limit) for one in policy.allowances if one.limit is not None and one.when.fits(question)]
    if limits:
        return f"{question.action} is high-risk and allowed up to {', '.join(limits)}, and this one {_amount(question)}"
    return f"{question.action} is high-risk, and no [[allow]] of the tenant's policy is about it"


def _amount(question: Question) -> str:
    return "states no amount" if question.amount is None else f"is for {question.amount}"


def _pattern(question: Question, kind: PrincipalKind, rules: Sequence[Rule]) -> AccessPattern:
    if question.capability or question.effect is Effect.HIGH_RISK or any(rule.capability for rule in rules):
        return AccessPattern.CAPABILITY
    return AccessPattern.DELEGATED if kind is PrincipalKind.USER else AccessPattern.SERVICE
