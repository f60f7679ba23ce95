"""`policy risk`: the risks of the workflows' declarations under a tenant's policy."""

from __future__ import annotations

import click

from deploy.cli.command import command
from deploy.cli.output import Output
from deploy.cli.policy import policy
from deploy.installation import Installation
from identity.model import AccessPattern
from identity.policy.ledger import Policies
from identity.policy.rules import FACTS_ALONE, Policy
from pipeline.authoring.declared_workflow import COMPENSATION
from pipeline.policy.risk import risk_table
from pipeline.views import operator_queries


@command(policy)
@click.option(
    "--tenant", help="Apply this tenant's policy to its enabled workflows.  [default: all workflows, no policy]"
)
@click.option("--workflow", help="Only this workflow.")
def risk(at: Installation, out: Output, tenant: str | None, workflow: str | None) -> None:
    """Grade six properties of the patterns by which each workflow's steps run, from their declarations.

    The grades are by pattern alone. Scopes, confinement to one repository, limits and approvals are named beside them.
    """
    chosen = [at.workflows.get(workflow)] if workflow else list(at.workflows.with_compensations)
    held: Policy = FACTS_ALONE
    if tenant is not None:
        held, settings = at.read(
            lambda c: (
                Policies().current(c, operator_queries.tenant(c, tenant)["id"]),
                operator_queries.all_workflow_settings(c, tenant),
            )
        )
        enabled = {row["workflow"] for row in settings if row["enabled"]}
        chosen = [one for one in chosen if one.name.removesuffix(COMPENSATION) in enabled]
    lines = [line for one in chosen for line in risk_table(one, held)]
    rows = [
        {
            "workflow": line.workflow,
            "pattern": str(line.pattern),
            "property": str(line.property),
            "grade": line.grade,
            "patterns": {str(pattern): cell for pattern, cell in line.patterns.items()},
        }
        for line in lines
    ]
    if out.as_json:
        out.document(rows)
        return
    told = [
        {**row, **{str(pattern): cell or "—" for pattern, cell in line.patterns.items()}}
        for row, line in zip(rows, lines, strict=True)
    ]
    out.rows(told, ("workflow", "property", *map(str, AccessPattern)), empty="No such workflow is switched on")
