"""The policy question about one step, asked at its opening and in trials of a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from identity.capability.model import Audience
from identity.model import PrincipalKind
from identity.policy.rules import Question, TriggerKind
from pipeline.action import Action
from pipeline.authoring.declared_workflow import TOOL, Workflow
from pipeline.authoring.uses import SERVICE, USER, Who

KINDS: Mapping[Who, PrincipalKind] = {USER: PrincipalKind.USER, SERVICE: PrincipalKind.SERVICE}


def question_of(
    workflow: Workflow, action: Action[Any], *, agent: str, named: Who | None, triggered: bool, has_user: bool
) -> Question:
    """Return the question. *triggered*: a person started the job; *has_user*: USER resolves to a known principal."""
    facts = action.facts
    declared = workflow.uses.get(type(action), Who(0))
    return Question(
        action=action.action_name(),
        provider=facts.provider,
        effect=facts.effect,
        attribution=facts.attribution,
        workflow=workflow.name,
        agent=agent,
        trigger=TriggerKind.PERSON if triggered else TriggerKind.BACKGROUND,
        declared=frozenset(kind for who, kind in KINDS.items() if declared & who),
        named=None if named is None else KINDS[named],
        has_user=has_user,
        amount=action.money(),
        capability=facts.capability,
        is_requested=workflow.name.startswith(TOOL),
    )


def question_of_declaration(
    workflow: Workflow, action: type[Action[Any]], kind: PrincipalKind, trigger: TriggerKind
) -> Question:
    """Return the question about a declared action without a step: as *kind*, with a known user and no amount."""
    facts = action.facts
    return Question(
        action=action.action_name(),
        provider=facts.provider,
        effect=facts.effect,
        attribution=facts.attribution,
        workflow=workflow.name,
        agent=workflow.agent,
        trigger=trigger,
        declared=frozenset({kind}),
        named=kind,
        has_user=True,
        capability=facts.capability,
        is_requested=workflow.name.startswith(TOOL),
    )


def prohibition(action: Action[Any], audience: Audience | None) -> str | None:
    """Return why no capability can be issued for *action*, or None."""
    if audience is None:
        return (
            f"{action.action_name()} needs a capability token, and {action.facts.provider} is not known to take any: "
            "see `aswhom capability audiences add`"
        )
    if not action.resource():
        return f"{action.action_name()} names no resource, and a capability is for one"
    return None
