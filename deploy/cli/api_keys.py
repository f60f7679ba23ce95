"""`api-keys`: the keys that agents call the API with. A key is shown only once, when it is made."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import partial

import click
from sqlalchemy import Connection, select

from deploy.cli.command import YES, command, confirm, in_full, names
from deploy.cli.output import Output
from deploy.cli.rates import limit_command
from deploy.installation import Installation
from deploy.local_times import local_time
from identity.agents.api_keys import Role, add_key, new_key, revoke_key
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
    """Add the options that describe a key, shared by both ways of recognising its holder."""
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
        function = option(function)
    return function


@command(api_keys)
@described
def add(
    at: Installation,
    out: Output,
    tenant: str,
    agent: str,
    role: str,
    tools: tuple[str, ...] | None,
    users: tuple[str, ...] | None,
    held_by: str | None,
    name: str,
    days: int,
) -> None:
    """Make a key and print it. It is not stored, and cannot be shown again."""
    _there_are(at, tools)
    holder = None if held_by is None else in_full(tenant, held_by)
    made = _Made(at, in_full(tenant, agent), days, tools=tools, users=_names(tenant, users), held_by=holder)
    at.write(partial(made.add, tenant=tenant, role=Role(role), name=name))
    key = made.secret.reveal()
    out.note(f"{made.id}, for {made.agent} as {role}, until {local_time(made.expires_at)}. It is shown this once:")
    out.done(key, {"id": made.id, "key": key, "agent": made.agent, "role": role, "expires_at": made.expires_at})


@command(api_keys)
@described
@click.option("--issuer", required=True, help="The exact iss of its tokens.")
@click.option("--audience", required=True, help="What their aud must be or contain: the issuer's name for us.")
@click.option("--subject", required=True, help="Their sub, which identifies the workload.")
@click.option("--jwks-url", required=True, help="Where the issuer's public keys are.")
def trust(
    at: Installation,
    out: Output,
    tenant: str,
    agent: str,
    role: str,
    tools: tuple[str, ...] | None,
    users: tuple[str, ...] | None,
    held_by: str | None,
    name: str,
    days: int,
    **whose: str,
) -> None:
    """Let an agent call with tokens of its platform instead of a key, so that there is no secret to keep.

    Kubernetes, cloud platforms and CI systems give each workload signed tokens. `revoke` ends the trust as it ends a
    key.
    """
    _there_are(at, tools)
    holder, now = None if held_by is None else in_full(tenant, held_by), at.now()
    made = _Made(at, in_full(tenant, agent), days, tools=tools, users=_names(tenant, users), held_by=holder)

    def write(c: Connection) -> None:
        made.add(c, tenant=tenant, role=Role(role), name=name)
        add_workload(c, made.id, Workload(**whose), by=at.operator, now=now)

    at.write(write)
    said = f"{made.id}: tokens of {whose['subject']} are {made.agent}'s, as {role}, until {local_time(made.expires_at)}"
    out.done(said, {"id": made.id, "agent": made.agent, "role": role, "expires_at": made.expires_at, **whose})


def _there_are(at: Installation, patterns: tuple[str, ...] | None) -> None:
    """Raise BadInput for a pattern that matches no tool, which would otherwise only show when the agent is refused."""
    for pattern in patterns or ():
        if not any(fnmatchcase(tool, pattern) for tool in at.workflows.tools):
            there = ", ".join(at.workflows.tools) or "none"
            raise BadInput(f"no tool is named {pattern}: there are {there}. Is its module in ASWHOM_WORKFLOWS?")


def _names(tenant: str, patterns: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Strip the tenant prefix: users are named within their tenant, and `acme.ada` is `ada`."""
    return None if patterns is None else tuple(pattern.removeprefix(f"{tenant}.") for pattern in patterns)


class _Made:
    """A key being made. Its secret exists nowhere else until it is printed."""

    def __init__(
        self,
        at: Installation,
        agent: str,
        days: int,
        *,
        tools: tuple[str, ...] | None,
        users: tuple[str, ...] | None,
        held_by: str | None,
    ) -> None:
        self.id = at.ids("key")
        self.agent = agent
        self._tools, self._users, self._held_by = tools, users, held_by
        self.secret = new_key(secrets.token_urlsafe(32))
        self.expires_at = at.now() + timedelta(days=days)
        self._by, self._now = at.operator, at.now()

    def add(self, connection: Connection, *, tenant: str, role: Role, name: str) -> None:
        """Store the key. Raise BadInput."""
        add_key(
            connection,
            self.secret,
            id=self.id,
            tenant=tenant,
            agent=self.agent,
            role=role,
            tools=self._tools,
            users=self._users,
            held_by=self._held_by,
            name=name,
            expires_at=self.expires_at,
            by=self._by,
            now=self._now,
        )


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
