"""`users`: the people of tenants, for whom agents act."""

from __future__ import annotations

import click

from deploy.cli.command import command
from deploy.cli.output import Output
from deploy.cli.stops import stop_and_open
from deploy.installation import Installation
from identity.model import ScopeKind
from pipeline.desk.scopes import named_scope
from pipeline.views import operator_queries


@click.group()
def users() -> None:
    """The people of tenants, for whom agents act. Each can be stopped as a whole."""


@command(users, "list")
@click.argument("tenant", required=False)
def list_users(at: Installation, out: Output, tenant: str | None) -> None:
    """List the principals: users, and each tenant's service."""
    stopped = {row["key"] for row in at.read(operator_queries.stopped_scopes) if row["kind"] == ScopeKind.USER}
    rows = at.read(lambda c: operator_queries.all_principals(c, tenant))
    out.rows(
        [{**row, "stopped": row["id"] in stopped} for row in rows],
        ("id", "tenant_id", "kind", "name", "stopped"),
        empty="No principal yet: `aswhom connect link` makes users",
    )


stop_and_open(
    users,
    lambda at, key: at.read(lambda c: named_scope(c, at.workflows, ScopeKind.USER, key, tenant=None)),
    what="user",
)
