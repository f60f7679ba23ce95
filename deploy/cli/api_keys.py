"""`api-keys`: what agents call the API with. A key is shown once, when it is made."""

from __future__ import annotations

import secrets
from datetime import timedelta

import click
from sqlalchemy import select

from deploy.cli.command import command, confirm, names
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.api_keys import Role, add_key, new_key, revoke_key
from identity.errors import BadInput
from identity.tables import api_keys as table

COLUMNS = (
    table.c.id,
    table.c.tenant_id,
    table.c.agent_id,
    table.c.role,
    table.c.tools,
    table.c.name,
    table.c.made_by,
    table.c.created_at,
    table.c.expires_at,
    table.c.revoked_at,
)


def agent_id(tenant: str, name: str) -> str:
    """The id of a tenant's own agent, who may be named by it in full: `acme.support-bot`."""
    return name if name.startswith(f"{tenant}.") else f"{tenant}.{name}"


@click.group("api-keys")
def api_keys() -> None:
    """Keys that agents call the API with."""


@command(api_keys)
@click.option("--tenant", required=True)
@click.option("--agent", required=True, help="The agent that calls, one of the tenant's own; made if it is new.")
@click.option(
    "--role",
    type=click.Choice([str(role) for role in Role]),
    default=str(Role.AGENT),
    show_default=True,
    help="agent: execute tools and see its own jobs. reader: see all of the tenant. admin: both, and revoke.",
)
@click.option(
    "--tools", callback=names, help="Which tools it may execute: github.*,linear.CreateIssue.  [default: all]"
)
@click.option("--name", default="", help="For people: where the key is used.")
@click.option("--days", default=90, show_default=True, type=click.IntRange(1, 3650), help="Until it expires.")
def create(
    at: Installation,
    out: Output,
    tenant: str,
    agent: str,
    role: str,
    tools: tuple[str, ...] | None,
    name: str,
    days: int,
) -> None:
    """Make a key, and print it: this once, for it is not stored."""
    id, now = at.ids("key"), at.now()
    secret, whose = new_key(secrets.token_urlsafe(32)), agent_id(tenant, agent)
    expires_at = now + timedelta(days=days)
    at.write(
        lambda c: add_key(
            c,
            secret,
            id=id,
            tenant=tenant,
            agent=whose,
            role=Role(role),
            tools=tools,
            name=name,
            expires_at=expires_at,
            by=at.operator,
            now=now,
        )
    )
    out.note(f"{id}, for {whose} as {role}, until {expires_at:%Y-%m-%d}. It is shown this once:")
    out.done(
        secret.reveal(), {"id": id, "key": secret.reveal(), "agent": whose, "role": role, "expires_at": expires_at}
    )


@command(api_keys, "list")
@click.option("--tenant")
def list_keys(at: Installation, out: Output, tenant: str | None) -> None:
    """The keys there are, without what recognises them."""
    statement = select(*COLUMNS).order_by(table.c.tenant_id, table.c.created_at)
    if tenant:
        statement = statement.where(table.c.tenant_id == tenant)
    rows = at.read(lambda c: c.execute(statement).mappings().all())
    shown = ("id", "agent_id", "role", "tools", "name", "expires_at", "revoked_at")
    out.rows([dict(row) for row in rows], shown, empty="No key yet: `aswhom api-keys create` makes one")


@command(api_keys)
@click.argument("id")
@click.option("--yes", is_flag=True, help="Do not ask.")
def revoke(at: Installation, out: Output, id: str, yes: bool) -> None:
    """End a key's life, now. What was accepted from it goes on: `aswhom revoke agent` stops that too."""
    confirm(f"Revoke {id}?", yes=yes)
    now = at.now()
    if not at.write(lambda c: revoke_key(c, id, by=at.operator, now=now)):
        raise BadInput(f"there is no live key {id}: `aswhom api-keys list` shows them")
    out.done(f"{id} lets nobody in any more", {"id": id, "revoked_at": now})
