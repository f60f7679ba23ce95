"""`console`: console roles, sessions and sign-in links."""

from __future__ import annotations

import click
from sqlalchemy import select

from deploy.cli.command import YES, command, confirm
from deploy.cli.output import Output
from deploy.console import new_link
from deploy.installation import Installation
from deploy.local_times import local_time
from identity.console import roles as console_roles
from identity.console import sessions as console_sessions
from identity.console.roles import Role
from identity.console.tables import console_roles as table


@click.group()
def console() -> None:
    """The console: who may do what there, and sign-in links."""


@command(console)
def link(at: Installation, out: Output) -> None:
    """Print a link that signs an owner in once, within ten minutes."""
    url, expires_at = new_link(at)
    sentence = f"{url}\nIt signs you in once, until {local_time(expires_at)}."
    out.done(sentence, {"url": url, "expires_at": expires_at})


@command(console)
def roles(at: Installation, out: Output) -> None:
    """List the roles, and the sign-in claims that grant them."""
    rows = at.read(lambda c: [dict(row) for row in c.execute(select(table).order_by(table.c.id)).mappings()])
    columns = ("id", "claim", "value", "role", "tenant_id", "made_by")
    out.rows(rows, columns, empty="Nobody has a role yet: `aswhom console allow --help`")


@command(console)
@click.argument("role", type=click.Choice([str(role) for role in Role]))
@click.option("--claim", default="email", show_default=True, help="email, sub, groups …")
@click.option("--value", required=True, help="The claim's value, or one of its values: ada@acme.example.")
@click.option("--tenant", help="Limit the role to this tenant.  [default: everything]")
def allow(at: Installation, out: Output, role: str, claim: str, value: str, tenant: str | None) -> None:
    """Give ROLE to everyone who signs in with a claim. It applies from their next sign-in."""
    id, act = at.ids("rol"), at.act()
    at.write(lambda c: console_roles.allow(c, act, id=id, claim=claim, value=value, role=Role(role), tenant=tenant))
    out.done(f"{id}: {claim} {value} is {role} of {tenant or 'everything'}", {"id": id, "role": role, "tenant": tenant})


@command(console)
@click.argument("id")
@YES
def disallow(at: Installation, out: Output, id: str, yes: bool) -> None:
    """Take a role back. Everyone who signed in through the identity provider has to sign in again."""
    confirm(f"Take {id} back, and end every session that came by the provider?", yes=yes)
    act = at.act()
    ended = at.write(lambda c: console_roles.disallow(c, id, act))
    out.done(f"{id} is taken back; {ended} session(s) ended", {"id": id, "sessions": ended})


@command(console)
def sessions(at: Installation, out: Output) -> None:
    """List who is signed in: by which provider, with which roles, last activity, and latest expiry."""
    now, idle = at.now(), at.settings.console_idle or None
    live = at.read(lambda c: console_sessions.live(c, now=now, idle=idle))
    rows = [{**row, "roles": ", ".join(row["roles"])} for row in live]
    columns = ("subject", "name", "issuer", "roles", "created_at", "seen_at", "expires_at")
    out.rows(rows, columns, empty="Nobody is signed in")


@command(console, "sign-out")
@click.option(
    "--subject", help="Only this person's, by the subject in `aswhom console sessions` or the maker of a link."
)
@YES
def sign_out(at: Installation, out: Output, subject: str | None, yes: bool) -> None:
    """End every session and every sign-in link immediately."""
    confirm("Sign everybody out?" if subject is None else f"Sign {subject} out?", yes=yes)
    act = at.act()
    if subject is not None:
        theirs = at.write(lambda c: console_sessions.end_of(c, subject, act))
        said = f"{theirs.sessions} session(s) of {subject} ended, and {theirs.links} sign-in link(s)"
        out.done(said, {"subject": subject, "sessions": theirs.sessions, "links": theirs.links})
        return
    ended = at.write(lambda c: console_sessions.end_all(c, act))
    out.done(f"{ended} session(s) ended", {"sessions": ended})
