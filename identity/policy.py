"""Policy: as whom an action runs, or why it may not.

Three questions in order: must this be attributable, did a person trigger it or is it background work, how sensitive
is it? A principal the author named can be refused; it is never exchanged for another.
"""

from __future__ import annotations

from dataclasses import dataclass

from identity.model import AccessPattern, Effect, PrincipalKind


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


def decide(
    *,
    action: str,
    effect: Effect,
    attribution: bool,
    declared: frozenset[PrincipalKind],
    named: PrincipalKind | None,
    user_triggered: bool,
    has_user: bool,
) -> Decision | Denied:
    """The decision on one step; the same question always gets the same answer.

    *action* is for the reason. *attribution*: it must be traceable to a person. *declared*: as whom the workflow says
    that it may run. *named*: whom the author named at this step; None leaves it to policy. *user_triggered*: a
    person's act started the job. *has_user*: whom the workflow means by USER is a known principal.
    """
    if named is not None:
        kind, reason = named, "named by the workflow"
    else:
        kind, reason = _preference(effect, attribution, declared, user_triggered, has_user)
    reason = f"{reason}: {_answers(effect, attribution, user_triggered)}"
    return _prohibition(action, kind, effect, attribution, declared, has_user) or _decision(kind, reason)


def _answers(effect: Effect, attribution: bool, user_triggered: bool) -> str:
    """The answers to the three questions, for whoever asks why."""
    return ", ".join(
        (
            "attributable" if attribution else "no attribution",
            "user-triggered" if user_triggered else "background",
            effect.value.replace("_", " "),
        )
    )


def _preference(
    effect: Effect, attribution: bool, declared: frozenset[PrincipalKind], user_triggered: bool, has_user: bool
) -> tuple[PrincipalKind, str]:
    """Whom policy would pick, and why."""
    if attribution:
        return PrincipalKind.USER, "the action must be attributable to a person"
    if len(declared) == 1:
        (only,) = declared
        return only, "the only principal the workflow declares for it"
    if not user_triggered:
        return PrincipalKind.SERVICE, "background work runs as the service"
    if effect is Effect.READ:
        return PrincipalKind.SERVICE, "a read needs no person's authority"
    if has_user:
        return PrincipalKind.USER, "a person triggered a change, so it is made as them"
    return PrincipalKind.SERVICE, "who triggered it is not a known principal"


def _prohibition(
    action: str,
    kind: PrincipalKind,
    effect: Effect,
    attribution: bool,
    declared: frozenset[PrincipalKind],
    has_user: bool,
) -> Denied | None:
    """Why *kind* may not, or None."""
    if kind not in declared:
        named = " or ".join(sorted(declared)) or "nobody"
        return Denied(reason=f"{action} as {kind} was not declared: the workflow declares {named}")
    if attribution and kind is not PrincipalKind.USER:
        return Denied(reason=f"{action} must be attributable to a person, so it does not run as {kind}")
    if kind is PrincipalKind.USER and not has_user:
        return Denied(reason=f"{action} would run as the user, and no principal is linked to who that is")
    if effect is Effect.HIGH_RISK:
        return Denied(reason="high-risk actions need an approval policy, and none is configured")
    return None


def _decision(kind: PrincipalKind, reason: str) -> Decision:
    pattern = AccessPattern.DELEGATED if kind is PrincipalKind.USER else AccessPattern.SERVICE
    return Decision(kind=kind, pattern=pattern, reason=reason)
