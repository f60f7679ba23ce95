"""`policy`: the rules that decide as whom a step runs, and the reasons for a decision."""

from __future__ import annotations

from collections.abc import Sequence

import click
from sqlalchemy import Connection

from deploy.cli.command import command
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.errors import BadInput
from identity.principals import get_principal
from pipeline.approvals.requested import approval_of
from pipeline.approvals.views import ApprovalView, approval, approvals_of_job
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.tool_workflows import is_of_a_tool
from pipeline.authoring.uses import SERVICE, USER, Who
from pipeline.ledger.paging import Record
from pipeline.views import operator_queries, tenant_views
from pipeline.views.wording import as_whom, started_by


@click.group()
def policy() -> None:
    """A tenant's rules, and the reasons for a decision."""


@command(policy)
@click.argument("job")
@click.argument("position", type=int, required=False)
def explain(at: Installation, out: Output, job: str, position: int | None) -> None:
    """Explain the decisions on a job's steps: what was declared, what was asked, and what followed."""
    row, started, steps, approvals = at.read(
        lambda c: (
            row := operator_queries.any_job(c, job),
            started_by(c, row),
            tenant_views.steps_of(c, job),
            approvals_of_job(c, job),
        )
    )
    waiting = at.read(lambda c: unopened(c, row))
    begun = [step for step in steps if not any(step["position"] == one["position"] for one in waiting)]
    chosen = [step for step in (*begun, *waiting) if position in (None, step["position"])]
    if position is not None and not chosen:
        raise BadInput(f"job {job} has no step {position}: `aswhom jobs show {job}` shows them")
    workflow = at.workflows.find(row["workflow"])
    answers = [explanation(workflow, row, started, step, answered(approvals, step)) for step in chosen]
    if out.as_json:
        out.document(answers)
        return
    for answer in answers:
        out.sentence(f"step {answer['step']}, {answer['action']}: {answer['decision']}")
        for line in answer["because"]:
            out.sentence(f"  - {line}")
    if not answers:
        out.sentence(f"job {job} has no steps yet")


def unopened(connection: Connection, job: Record) -> list[Record]:
    """Return the step that a job waits to open, in the form of a stored step; it has no row of its own yet."""
    step = job["waiting_step"]
    if step is None:
        return []
    who = get_principal(connection, step["principal_id"])
    view = approval(connection, job["waits_for"].removeprefix(approval_of("")))
    wants = [
        f"the policy's rule {need.rule!r} wants {need.quorum} of {', '.join(need.approvers) or 'nobody'} to say yes"
        for need in (view.needs if view is not None else ())
    ]
    named = {"principal": who and who.name, "kind": who and str(who.kind)}
    return [{**step, **named, "state": job["state"], "error": None, "awaits": [*wants, job["reason"]]}]


def answered(approvals: Sequence[ApprovalView], step: Record) -> list[str]:
    """Say who answered the approvals of one step."""
    return [
        f"approval {one.id}: {answer.principal} said {'yes' if answer.yes else 'no'}"
        for one in approvals
        if one.shown["step"] == step["position"]
        for answer in one.answers
    ]


def explanation(
    workflow: Workflow | None, job: Record, started_by: str, step: Record, approvals: Sequence[str]
) -> Record:
    """Answer the three questions of policy for one step."""
    uses = {} if workflow is None else workflow.uses
    action = next((one for one in uses if one.action_name() == step["action"]), None)
    because = []
    if action is not None:
        declared = uses[action]
        if not is_of_a_tool(job["workflow"]):
            because.append(f"the workflow declares {_names(declared)} for it")
        facts = action.facts
        needs = "must" if facts.attribution else "need not"
        because.append(f"it {needs} be attributable to a person, and its effect is {facts.effect}")
    because.append(
        f"a person's act started the job: {started_by}" if job["triggered_by"] else "background work started it"
    )
    because.append(
        f"the user it means is {job['user_id']}" if job["user_id"] else "USER stands for nobody who is known here"
    )
    author = "the agent's request" if is_of_a_tool(job["workflow"]) else "the workflow"
    because.append(f"{author} left it to policy" if step["named"] == "policy" else f"{author} named {step['named']}")
    because.append(step["error"] or step["reason"])
    because.extend(approvals)
    version = step["policy_version"]
    because.append(f"by version {version} of the tenant's policy" if version else "the tenant had no policy of its own")
    pattern = f", {step['pattern']}" if step["pattern"] else ""  # a sleep has no pattern
    decision = "refused" if step["state"] == "refused" else f"as {as_whom(step)}{pattern}"
    if "awaits" in step:
        because += step["awaits"]
        decision += ": not begun yet"
    return {"step": step["position"], "action": step["action"], "decision": decision, "because": because}


def _names(who: Who) -> str:
    return " or ".join(name for flag, name in ((USER, "the user"), (SERVICE, "the service")) if who & flag)
