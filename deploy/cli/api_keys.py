"""`api-keys`: the keys that agents call the API with. A key is shown only once, when it is made."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

import click
from sqlalchemy import Connection, select

from deploy.cli.command import YES, command, confirm, in_full, names
from deploy.cli.output import Output
from deploy.cli.rates import limit_command
from deploy.installation import Installation
from deploy.local_times import local_time
from identity.agents.api_keys import NewApiKey, Role, add_key, new_key, revoke_key
from identity.agents.tables import api_keys as table
from identity.agents.tables import workloads
from identity.agents.workloads import Workload, add_workload
from identity.errors import BadInput
from pipeline.desk.rates import limit_key

COLUMNS = (
    table.c.id,
    table.c.tenant_id,
    table.c.agent_id,
    table.c.role,
    table.c.tools,
    table.c.users,
    table.c.name,
    table.c.made_by,
    table.c.held_by,
    table.c.api_rate,
    table.c.created_at,
    table.c.expires_at,
    table.c.revoked_at,
    workloads.c.issuer,
    workloads.c.subject,
)


@click.group("api-keys")
def api_keys() -> None:
    """Keys that agents call the API with."""


def described(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that describe a key, and call *function* with the key to add as `new`, and its end as `until`.

    Both ways of recognising a key's holder share them.
    """

    @functools.wraps(function)
    def with_key(
        at: Installation,
        out: Output,
        *,
        tenant: str,
        agent: str,
        role: str,
        tools: tuple[str, ...] | None,
        users: tuple[str, ...] | None,
        held_by: str | None,
        name: str,
        days: int,
        **more: Any,
    ) -> None:
        _there_are(at, tools)
        expires_at = at.now() + timedelta(days=days)
        new = NewApiKey(
            id=at.ids("key"),
            tenant=tenant,
            agent=in_full(tenant, agent),
            role=Role(role),
            tools=tools,
            users=_names(tenant, users),
            held_by=None if held_by is None else in_full(tenant, held_by),
            name=name,
            expires_at=expires_at,
        )
        function(at, out, new=new, until=local_time(expires_at), **more)

    for option in (
        click.option(
            "--days", default=90, show_default=True, type=click.IntRange(1, 3650), help="Days until it expires."
        ),
        click.option("--name", default="", help="A note for people: where the key is used."),
        click.option(
            "--tools", callback=names, help="Tools it may execute: github.*,linear.CreateIssue.  [default: all]"
        ),
        click.option("--users", callback=names, help="Users it may act as and invite: ada,support-*.  [default: all]"),
        click.option(
            "--held-by",
            metavar="USER",
            help="The user who holds the key. They cannot approve what it asks for.  [default: nobody]",
        ),
        click.option(
            "--role",
            type=click.Choice([str(role) for role in Role]),
            default=str(Role.AGENT),
            show_default=True,
            help="agent: execute tools and see its own jobs. product: make connect links, confirm who came back, and "
            "see all of the tenant; with --users, only jobs of these users and of the service. reader: see the same "
            "as product. admin: everything above, and revoke.",
        ),
        click.option("--agent", required=True, help="The calling agent, one of the tenant's own. Created if new."),
        click.option("--tenant", required=True),
    ):
        with_key = option(with_key)
    return with_key


@command(api_keys)
@described
def add(at: Installation, out: Output, new: NewApiKey, until: str) -> None:
    """Make a key and print it. It is not stored, and cannot be shown again."""
    secret, now = new_key(secrets.token_urlsafe(32)), at.now()
    at.write(lambda c: add_key(c, secret, new, by=at.operator, now=now))
    key = secret.reveal()
    out.note(f"{new.id}, for {new.agent} as {new.role}, until {until}. It is shown this once:")
    out.done(key, {"id": new.id, "key": key, "agent": new.agent, "role": new.role, "expires_at": new.expires_at})


@command(api_keys)
@described
@click.option("--issuer", required=True, help="The exact iss of its tokens.")
@click.option("--audience", required=True, help="What their aud must be or contain: the issuer's name for us.")
@click.option("--subject", required=True, help="Their sub, which identifies the workload.")
@click.option("--jwks-url", required=True, help="Where the issuer's public keys are.")
def trust(at: Installation, out: Output, new: NewApiKey, until: str, **whose: str) -> None:
    """Let an agent call with tokens of its platform instead of a key, so that there is no secret to keep.

    Kubernetes, cloud platforms and CI systems give each workload signed tokens. `revoke` ends the trust as it ends a
    key.
    """
    unused, now = new_key(secrets.token_urlsafe(32)), at.now()  # every row has a secret, which nobody learns here

    def write(c: Connection) -> None:
        add_key(c, unused, new, by=at.operator, now=now)
        add_workload(c, new.id, Workload(**whose), by=at.operator, now=now)

    at.write(write)
    said = f"{new.id}: tokens of {whose['subject']} are {new.agent}'s, as {new.role}, until {until}"
    out.done(said, {"id": new.id, "agent": new.agent, "role": new.role, "expires_at": new.expires_at, **whose})


def _there_are(at: Installation, patterns: tuple[str, ...] | None) -> None:
    """Raise BadInput for a pattern that matches no tool, which would otherwise only show when the agent is refused."""
    for pattern in patterns or ():
        if not any(fnmatchcase(tool, pattern) for tool in at.workflows.tools):
            there = ", ".join(at.workflows.tools) or "none"
            raise BadInput(f"no tool is named {pattern}: there are {there}. Is its module in ASWHOM_WORKFLOWS?")


def _names(tenant: str, patterns: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Strip the tenant prefix: users are named within their tenant, and `acme.ada` is `ada`."""
    return None if patterns is None else tuple(pattern.removeprefix(f"{tenant}.") for pattern in patterns)


@command(api_keys, "list")
@click.option("--tenant")
def list_keys(at: Installation, out: Output, tenant: str | None) -> None:
    """List the keys, without their hashes."""
    statement = (
        select(*COLUMNS)
        .outerjoin(workloads, workloads.c.key_id == table.c.id)
        .order_by(table.c.tenant_id, table.c.created_at)
    )
    if tenant:
        statement = statement.where(table.c.tenant_id == tenant)
    rows = at.read(lambda c: c.execute(statement).mappings().all())
    columns = ("id", "agent_id", "role", "tools", "users", "held_by", "api_rate", "name", "subject")
    shown = (*columns, "expires_at", "revoked_at")
    out.rows([dict(row) for row in rows], shown, empty="No key yet: `aswhom api-keys add` makes one")


@command(api_keys)
@click.argument("id")
@YES
def revoke(at: Installation, out: Output, id: str, yes: bool) -> None:
    """Revoke a key immediately. Work accepted from it continues; `aswhom revoke agent` stops that as well."""
    confirm(f"Revoke {id}?", yes=yes)
    now = at.now()
    if not at.write(lambda c: revoke_key(c, id, by=at.operator, now=now)):
        raise BadInput(f"there is no live key {id}: `aswhom api-keys list` shows them")
    out.done(f"{id} lets nobody in any more", {"id": id, "revoked_at": now})


limit_command(
    api_keys,
    limit_key,
    column="api_rate",
    help="Limit the requests of a key to RATE a minute.",
    default="ASWHOM_API_RATE holds, or its agent's rate",
)
