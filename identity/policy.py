"""Policy: as whom an action runs, or why it may not.

Three questions in order: must this be attributable, did a person trigger it or is it background work, how sensitive
is it? A principal the author named can be refused; it is never exchanged for another.
"""

from __future__ import annotations

from dataclasses import dataclass

from identity.model import AccessPattern, Effect, PrincipalKind


@dataclass(frozen=True, kw_only=True)
class Question:
    """What policy looks at, in plain values."""

    action: str  # for the reason
    effect: Effect
    attribution: bool  # the action must be traceable to a person
    declared: frozenset[PrincipalKind]  # as whom the workflow declared that it may run
    named: PrincipalKind | None  # whom the author named at this step; None leaves it to policy
    user_triggered: bool  # a person's act started the job
    has_user: bool  # that person, or whom the workflow means by USER, is a known principal


@dataclass(frozen=True, kw_only=True)
class Decision:
    """As whom, by which pattern, and why; stored with the intent and in the audit."""

    kind: PrincipalKind
    pattern: AccessPattern
    reason: str


@dataclass(frozen=True, kw_only=True)
class Denied:
    """Nobody may, and why."""

    reason: str


def decide(question: Question) -> Decision | Denied:
    """The decision on one step; the same question always gets the same answer."""
    if question.named is not None:
        return _prohibition(question, question.named) or _decision(question.named, "named by the workflow")
    kind, reason = _preference(question)
    return _prohibition(question, kind) or _decision(kind, reason)


def _preference(question: Question) -> tuple[PrincipalKind, str]:
    """Whom policy would pick, and why."""
    if question.attribution:
        return PrincipalKind.USER, "the action must be attributable to a person"
    declared = question.declared
    if len(declared) == 1:
        (only,) = declared
        return only, "the only principal the workflow declares for it"
    if not question.user_triggered:
        return PrincipalKind.SERVICE, "background work runs as the service"
    if question.effect is Effect.READ:
        return PrincipalKind.SERVICE, "a read needs no person's authority"
    if question.has_user:
        return PrincipalKind.USER, "a person triggered a change, so it is made as them"
    return PrincipalKind.SERVICE, "who triggered it is not a known principal"


def _prohibition(question: Question, kind: PrincipalKind) -> Denied | None:
    """Why *kind* may not, or None."""
    action = question.action
    if kind not in question.declared:
        declared = " or ".join(sorted(question.declared)) or "nobody"
        return Denied(reason=f"{action} as {kind} was not declared: the workflow declares {declared}")
    if question.attribution and kind is not PrincipalKind.USER:
        return Denied(reason=f"{action} must be attributable to a person, so it does not run as {kind}")
    if kind is PrincipalKind.USER and not question.has_user:
        return Denied(reason=f"{action} would run as the user, and no principal is linked to who that is")
    if question.effect is Effect.HIGH_RISK:
        return Denied(reason="high-risk actions need an approval policy, and none is configured")
    return None


def _decision(kind: PrincipalKind, reason: str) -> Decision:
    pattern = AccessPattern.DELEGATED if kind is PrincipalKind.USER else AccessPattern.SERVICE
    return Decision(kind=kind, pattern=pattern, reason=reason)
