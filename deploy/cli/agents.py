"""`agents`: the software that acts, as its workflows declare it."""

from __future__ import annotations

import click

from deploy.cli.command import command
from deploy.cli.output import Output
from deploy.cli.rates import limit_command
from deploy.cli.stops import stop_and_open
from deploy.installation import Installation
from identity.model import ScopeKind
from pipeline.desk.rates import limit_agent
from pipeline.desk.scopes import agent_scope
from pipeline.views import operator_queries


@click.group()
def agents() -> None:
    """The software that acts. Each agent is named in every audit row and can be stopped as a whole."""


@command(agents, "list")
def list_agents(at: Installation, out: Output) -> None:
    """List agents: those declared by workflows, and those that have had a job or an API key."""
    rows = {row["id"]: row for row in at.read(operator_queries.all_agents)}
    stopped = {row["key"] for row in at.read(operator_queries.stopped_scopes) if row["kind"] == ScopeKind.AGENT}
    declared: dict[str, list[str]] = {}
    for workflow in at.workflows:
        declared.setdefault(workflow.agent, []).append(workflow.name)
    listed = [
        {
            "id": id,
            "tenant_id": rows[id]["tenant_id"] if id in rows else None,
            "workflows": sorted(declared.get(id, [])),
            "has_had_a_job": id in rows,
            "api_rate": rows[id]["api_rate"] if id in rows else None,
            "stopped": id in stopped,
        }
        for id in sorted({*rows, *declared})
    ]
    columns = ("id", "tenant_id", "workflows", "has_had_a_job", "api_rate", "stopped")
    out.rows(listed, columns, empty="No workflow is installed, and so no agent")


stop_and_open(agents, lambda at, key: at.read(lambda c: agent_scope(c, at.workflows, key)), what="agent")
limit_command(
    agents,
    limit_agent,
    column="api_rate",
    help="Limit the requests that all API keys of an agent make, together, to RATE a minute.\n\nThis replaces "
    "ASWHOM_API_RATE for each of them. A key with a rate of its own (`api-keys limit`) is limited by both.",
    default="each of its keys has a quota of its own",
)
