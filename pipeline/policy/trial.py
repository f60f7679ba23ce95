"""Trials of a policy: compare two policies on the same steps, declared or done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, RowMapping, or_, select

from identity.agents.api_keys import Caller, executors
from identity.capability.audiences import of_connection
from identity.capability.model import Audience
from identity.connections.registry import connection_for
from identity.errors import BadInput, Misconfigured
from identity.model import AccessPattern
from identity.money import MOST, Money
from identity.policy.decision import Decision, Denied, decide
from identity.policy.rules import Policy, Question, TriggerKind
from identity.sql.columns import is_one
from pipeline.action import Action
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.registry import Registry
from pipeline.authoring.uses import SERVICE, USER, Who
from pipeline.policy.question import KINDS, prohibition, question_of, question_of_declaration
from pipeline.states import JobState
from pipeline.tables import jobs, steps

NAMED: dict[str, Who | None] = {"policy": None, "user": USER, "service": SERVICE}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One step to ask both policies about."""

    where: str  # a workflow, or job and step
    question: Question
    no_capability: str | None = None  # why it could not get a capability, if known
    any_amount: bool = False  # it moves money, of an amount known only at run time


@dataclass(frozen=True, kw_only=True)
class Change:
    """Steps of one workflow and action with a changed result, and an example."""

    workflow: str
    action: str
    before: str
    after: str
    steps: int
    example: str


@dataclass(frozen=True, kw_only=True)
class PolicyTrial:
    """The result of a comparison. *unreadable*: stored steps that today's code does not know."""

    asked: int
    unreadable: int
    changes: tuple[Change, ...]

    @property
    def changed(self) -> int:
        """The number of steps with a changed decision."""
        return sum(one.steps for one in self.changes)


def declared_cases(workflows: Iterable[Workflow]) -> Iterator[Case]:
    """Yield every action that a workflow declares, as each principal kind and by each trigger that its jobs can have.

    A declaration has no amount: actions that move money are tried with every amount the policy names.
    """
    for workflow in workflows:
        for action, declared in workflow.uses.items():
            for who in (USER, SERVICE):
                for trigger in _triggers(workflow):
                    if declared & who:
                        yield Case(
                            where=f"{workflow.name} as {KINDS[who]}, {trigger}",
                            question=question_of_declaration(workflow, action, KINDS[who], trigger),
                            any_amount=action.money is not Action.money,
                        )


def _triggers(workflow: Workflow) -> tuple[TriggerKind, ...]:
    return (TriggerKind.BACKGROUND,) if workflow.triggered_by is None else tuple(TriggerKind)


def tool_cases(connection: Connection, workflows: Registry, tenant: str, *, now: datetime) -> Iterator[Case]:
    """Yield every tool that an API key of *tenant* may execute now, once per agent and principal kind."""
    keys: dict[str, list[Caller]] = {}
    for key in executors(connection, tenant, now=now):
        keys.setdefault(key.agent, []).append(key)
    for agent, callers in keys.items():
        for action in workflows.tools.values():
            if any(caller.may_execute(action.action_name()) for caller in callers):
                for who in (USER, SERVICE):
                    workflow = replace(workflows.for_tool(action, who), agent=agent)
                    yield Case(
                        where=f"{agent} as {KINDS[who]}",
                        question=question_of_declaration(workflow, action, KINDS[who], TriggerKind.BACKGROUND),
                        any_amount=action.money is not Action.money,
                    )


def stored_cases(connection: Connection, workflows: Registry, tenant: str, *, since: datetime) -> Iterator[Case | None]:
    """Yield the tenant's steps that wait to open, and those begun since then, as today's code declares them.

    Yields None for a step that today's code does not know.
    """
    takers = takers_of(connection, workflows, tenant)
    of_job = (jobs.c.id, jobs.c.workflow, jobs.c.agent_id, jobs.c.triggered_by, jobs.c.user_id)
    of_tenant = jobs.c.tenant_id == tenant
    waiting = set()
    parked = select(*of_job, jobs.c.waiting_step).where(
        of_tenant, is_one(jobs.c.state, JobState.WAITING), jobs.c.waiting_step.is_not(None)
    )
    with connection.execute(parked.execution_options(yield_per=500)).mappings() as rows:
        for job in rows:
            step = job["waiting_step"]
            waiting.add((job["id"], step["position"]))
            yield _case_of(workflows, takers, job, step)
    # A job that ended before *since* has no later steps, so its steps are not read.
    lately = or_(jobs.c.finished_at.is_(None), jobs.c.finished_at >= since)
    begun = (
        select(*of_job, steps.c.position, steps.c.action, steps.c.named, steps.c.parameters)
        .join(jobs, jobs.c.id == steps.c.job_id)
        .where(of_tenant, lately, steps.c.opened_at >= since, steps.c.action != "run.sleep")
    )
    with connection.execute(begun.execution_options(yield_per=500)).mappings() as rows:
        for row in rows:
            if (row["id"], row["position"]) not in waiting:
                yield _case_of(workflows, takers, row, row)


def takers_of(connection: Connection, workflows: Registry, tenant: str) -> dict[str, Audience]:
    """Return the tenant's upstreams that take capabilities, by provider."""
    found: dict[str, Audience] = {}
    for provider in {action.facts.provider for action in workflows.actions.values()}:
        with suppress(Misconfigured):  # the tenant has no connection to it, so no capability goes there
            audience = of_connection(connection, connection_for(connection, tenant, provider).id)
            if audience is not None:
                found[provider] = audience
    return found


def _case_of(
    workflows: Registry, takers: Mapping[str, Audience], job: RowMapping, step: Mapping[Any, Any]
) -> Case | None:
    workflow = workflows.find(job["workflow"])
    declared = workflow.uses if workflow is not None else {}
    action = next((one for one in declared if one.action_name() == step["action"]), None)
    if workflow is None or action is None:
        return None
    try:
        filled = action.model_validate(step["parameters"])
        question = question_of(
            workflow,
            filled,
            agent=job["agent_id"],
            named=NAMED[step["named"]],
            triggered=job["triggered_by"] is not None,
            has_user=job["user_id"] is not None,
        )
    except (ValidationError, BadInput):  # its parameters, or the amount computed from them
        return None
    why_not = prohibition(filled, takers.get(filled.facts.provider))
    return Case(where=f"job {job['id']} step {step['position']}", question=question, no_capability=why_not)


def compare(cases: Iterable[Case | None], before: Policy, after: Policy) -> PolicyTrial:
    """Compare both policies on every case; count differences by workflow and action."""
    found: dict[tuple[str, str, str, str], Change] = {}
    asked = unreadable = 0
    for case in cases:
        if case is None:
            unreadable += 1
            continue
        asked += 1
        old, new = _said_of(case, before), _said_of(case, after)
        if old == new:
            continue
        key = (case.question.workflow, case.question.action, old, new)
        known = found.get(key)
        if known is None:
            workflow, action, *_ = key
            known = Change(workflow=workflow, action=action, before=old, after=new, steps=0, example=case.where)
        found[key] = replace(known, steps=known.steps + 1)
    return PolicyTrial(asked=asked, unreadable=unreadable, changes=tuple(found[key] for key in sorted(found)))


def _said_of(case: Case, policy: Policy) -> str:
    """Return the result in words; if it depends on the amount, by amount."""
    named = _amounts_about(case.question, policy) if case.any_amount else []
    if not named:
        return said(_answer(case, policy))
    amounts = {one.currency: sorted(each.amount for each in named if each.currency == one.currency) for one in named}
    found = [part for currency in sorted(amounts) for part in _by_amount(case, policy, amounts[currency], currency)]
    return "; ".join(dict.fromkeys(found))


def _amounts_about(question: Question, policy: Policy) -> list[Money]:
    """Return the amounts at which the policy's decision may change."""
    rules = [amount for one in policy.rules if one.when.fits(question) for amount in (one.above, one.max_amount)]
    limits = [one.limit for one in policy.allowances if one.when.fits(question)]
    return [one for one in (*rules, *limits) if one is not None]


def _by_amount(case: Case, policy: Policy, amounts: Sequence[Decimal], currency: str) -> list[str]:
    """Return the results up to each of *amounts* and above; once refused, larger amounts are refused as well."""
    until: dict[str, Decimal | None] = {}
    for most in (*amounts, None):
        asked = Money(amount=min(amounts[-1] + 1, MOST) if most is None else most, currency=currency)
        answer = _answer(replace(case, question=replace(case.question, amount=asked)), policy)
        if isinstance(answer, Denied):
            until[said(answer)] = None
            break
        # the limit is the amount that the sentence already names
        unlimited = replace(answer.constraints, max_amount=None)
        until[said(replace(answer, constraints=unlimited))] = most
    if len(until) == 1:
        return list(until)
    return [f"{f'up to {most} {currency}' if most is not None else 'for more'}: {says}" for says, most in until.items()]


def _answer(case: Case, policy: Policy) -> Decision | Denied:
    """Return the decision when carried out: denied if it needs a capability and can get none."""
    decision = decide(case.question, policy)
    needs = isinstance(decision, Decision) and decision.pattern is AccessPattern.CAPABILITY
    if case.no_capability is None or not needs:
        return decision
    return Denied(reason=case.no_capability, policy=decision.policy, rules=decision.rules)


def said(decision: Decision | Denied) -> str:
    """Return a decision in a few words."""
    if isinstance(decision, Denied):
        return f"refused: {decision.reason}"
    held = decision.constraints
    needs = [f"{one.quorum} of {', '.join(sorted(one.approvers))}" for one in held.approvals]
    return (
        f"as {decision.kind}, {decision.pattern}"
        + (f", up to {held.max_amount}" if held.max_amount is not None else "")
        + (f", approved by {' and by '.join(needs)}" if needs else "")
    )
