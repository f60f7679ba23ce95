"""Checks of a policy for silent mistakes: names that match nothing, actions left to nobody, impossible rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import Connection, or_, select

from identity.model import PrincipalKind
from identity.policy.rules import ApprovalNeed, Names, Policy, TriggerKind, When
from identity.tables import agents, principals
from pipeline.action import Action
from pipeline.approvals.needs import resolved
from pipeline.authoring.declared_workflow import COMPENSATION, Workflow
from pipeline.authoring.registry import Registry
from pipeline.authoring.uses import SERVICE, USER
from pipeline.policy.question import KINDS, question_of_declaration
from pipeline.policy.trial import takers_of


def unknown_names(connection: Connection, workflows: Registry, tenant: str, policy: Policy) -> list[str]:
    """Return a sentence for each pattern and approver of *policy* that matches nothing of *tenant*.

    Includes each quorum that exceeds its approvers because several of the names mean one person.
    """
    there = _there(connection, workflows, tenant)
    entries = [(rule.name, rule.when) for rule in policy.rules] + [(one.name, one.when) for one in policy.allowances]
    found = [
        f"{name}: no {what} is named {pattern}{_meant(what, pattern, tenant, there[what])}"
        for name, when in entries
        for what, names in _named(when).items()
        for pattern in (names.patterns if names is not None else ())
        if not any(fnmatchcase(one, pattern) for one in there[what])
    ]
    people = _people(connection, tenant)
    return (
        found
        + [
            f"{rule.name}: the approver {one} is no user of tenant {tenant}: an alias makes one "
            f"(`aswhom aliases add --tenant {tenant} --user {one}`), or a link to connect"
            for rule in policy.rules
            if rule.approval is not None
            for one in sorted(rule.approval.approvers - people)
        ]
        + [
            f"{need.rule}: a quorum of {need.quorum} needs as many approvers, and {_listed(need.approvers)} are "
            f"{count} user(s): an id and a name may mean the same person"
            for need, count in _approvers_of(connection, tenant, policy)
            if count < need.quorum and need.approvers <= people
        ]
    )


def without_spare(connection: Connection, workflows: Registry, tenant: str, policy: Policy) -> list[str]:
    """Return a sentence for each rule that leaves too few approvers once those who asked are barred."""
    whens = {rule.name: rule.when for rule in policy.rules}
    found = []
    for need, count in _approvers_of(connection, tenant, policy):
        spare, named = count - need.quorum, _listed(need.approvers)
        when = whens[need.rule]
        undoes = _is_about_any(when, (one for one in workflows.with_compensations if one.name.endswith(COMPENSATION)))
        if spare in (0, 1) and undoes:
            found.append(
                f"{need.rule}: it names {count} user(s) ({named}) for a quorum of {need.quorum}, and neither the "
                "person who asked for a job nor the person who revoked may approve its compensation, so it is "
                f"refused if {'both are' if spare else 'either is'} among them: name {2 - spare} more"
            )
        if spare == 0 and (not undoes or _is_about_any(when, _ordinary(workflows))):
            found.append(
                f"{need.rule}: its quorum is everybody it names ({named}), and whoever asks may not "
                "approve, so a step that one of them asks for is refused: name one more"
            )
    return found


def nobody_left(workflows: Registry, policy: Policy) -> list[str]:
    """Return a sentence for each action that a rule's `require` leaves to nobody, by its facts or declaration."""
    return [
        f"{rule.name}: nobody may do {sentence}"
        for rule in policy.rules
        if rule.kinds is not None
        for action in workflows.actions.values()
        for sentence in _left_to_nobody(workflows, action, rule.when, rule.kinds)
    ]


def without_capability(connection: Connection, workflows: Registry, tenant: str, policy: Policy) -> list[str]:
    """Return a sentence for each rule that wants capabilities from providers that take none, so steps are refused."""
    takers = takers_of(connection, workflows, tenant)
    found = []
    for rule in policy.rules:
        about = _actions_about(workflows, rule.when) if rule.capability else []
        names = sorted(one.action_name() for one in about if one.facts.provider not in takers)
        if names:
            found.append(
                f"{rule.name}: it wants a capability for {', '.join(names)}, whose upstream is not known to take any, "
                "so every such step would be refused (`aswhom capability audiences add`)"
            )
    return found


def without_amount(workflows: Registry, policy: Policy) -> list[str]:
    """Return a sentence for each entry that names an amount, although none of its actions states one."""
    named = [(rule.name, rule.when, rule.above or rule.max_amount) for rule in policy.rules]
    named += [(one.name, one.when, one.limit) for one in policy.allowances]
    return [
        f"{name}: no action that it is about states an amount, so each counts as more than {amount}"
        for name, when, amount in named
        if amount is not None
        and (about := _actions_about(workflows, when))
        and all(one.money is Action.money for one in about)
    ]


def _actions_about(workflows: Registry, when: When) -> list[type[Action[Any]]]:
    return [
        action
        for action in workflows.tools.values()
        if any(
            action in one.uses and _is_about(when, one, action)
            for one in (
                *workflows.with_compensations,
                workflows.for_tool(action, USER),
                workflows.for_tool(action, SERVICE),
            )
        )
    ]


def _left_to_nobody(
    workflows: Registry, action: type[Action[Any]], when: When, kinds: frozenset[PrincipalKind]
) -> Iterator[str]:
    name, tools = action.action_name(), [workflows.for_tool(action, USER)] if action.facts.tool else []
    about = [
        one for one in (*tools, *workflows.with_compensations) if action in one.uses and _is_about(when, one, action)
    ]
    if about and action.facts.attribution and PrincipalKind.USER not in kinds:
        yield f"{name} any more, which must be attributable to a person"
        return
    for workflow in about:
        declared = [kind for who, kind in KINDS.items() if workflow.uses[action] & who]
        # a tool has a separate workflow for each principal kind
        if workflow not in tools and not kinds.intersection(declared):
            yield f"{name} in {workflow.name} any more, which declares {' or '.join(declared)} for it"


def _is_about(when: When, workflow: Workflow, action: type[Action[Any]]) -> bool:
    return any(when.fits(question_of_declaration(workflow, action, PrincipalKind.USER, one)) for one in TriggerKind)


def _is_about_any(when: When, workflows: Iterable[Workflow]) -> bool:
    return any(_is_about(when, one, action) for one in workflows for action in one.uses)


def _ordinary(workflows: Registry) -> Iterator[Workflow]:
    """Yield all workflows that compensate nothing, those of tools included."""
    yield from (one for one in workflows.with_compensations if not one.name.endswith(COMPENSATION))
    yield from (workflows.for_tool(action, who) for action in workflows.tools.values() for who in (USER, SERVICE))


def _meant(what: str, pattern: str, tenant: str, names: Iterable[str]) -> str:
    """Suggest the full name of an API key's agent, such as `acme.support-bot`."""
    full = f"{tenant}.{pattern}"
    return f", but {full} is" if what == "agent" and any(fnmatchcase(one, full) for one in names) else ""


def _named(when: When) -> Mapping[str, Names | None]:
    return {"action": when.action, "provider": when.provider, "workflow": when.workflow, "agent": when.agent}


def _there(connection: Connection, workflows: Registry, tenant: str) -> Mapping[str, Iterable[str]]:
    """Return all existing names, by kind."""
    actions = workflows.actions
    of_tools = [workflows.for_tool(action, who).name for action in workflows.tools.values() for who in (USER, SERVICE)]
    registered = select(agents.c.id).where(or_(agents.c.tenant_id == tenant, agents.c.tenant_id.is_(None)))
    return {
        "action": list(actions),
        "provider": {action.facts.provider for action in actions.values()},
        "workflow": [one.name for one in workflows.with_compensations] + of_tools,
        "agent": {one.agent for one in workflows.with_compensations} | set(connection.execute(registered).scalars()),
    }


def _approvers_of(connection: Connection, tenant: str, policy: Policy) -> list[tuple[ApprovalNeed, int]]:
    """Return the need of each rule that asks for approval, and how many people its approvers are."""
    needs = [rule.approval for rule in policy.rules if rule.approval is not None]
    return [(need, len(resolved(connection, tenant, need)["approvers"])) for need in needs]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _people(connection: Connection, tenant: str) -> set[str]:
    """Return the tenant's users, by id and by name."""
    users = select(principals.c.id, principals.c.name).where(
        principals.c.tenant_id == tenant, principals.c.kind == PrincipalKind.USER
    )
    return {word for row in connection.execute(users) for word in row}
