"""`accounts` and `connect`: connected accounts, and the links by which people connect theirs."""

from __future__ import annotations

import click

from deploy.cli import queries
from deploy.cli.command import command, invocation, names
from deploy.cli.output import Output
from deploy.cli.tenants import ensure_user, user_id
from deploy.installation import Installation
from identity.model import AccountKey


@click.group()
def accounts() -> None:
    """Connected accounts: as whom calls can be made."""


@command(accounts, "list")
@click.option("--tenant")
@click.option("--state", help="pending, active, needs_reconnect, suspended, revoked")
def list_accounts(at: Installation, out: Output, tenant: str | None, state: str | None) -> None:
    """The accounts, without their credentials."""
    rows = at.read(lambda c: queries.all_accounts(c, tenant=tenant, state=state))
    columns = (
        "id",
        "tenant_id",
        "connection_id",
        "principal_id",
        "external_login",
        "credential",
        "state",
        "expires_at",
    )
    out.rows(rows, columns, empty="No account yet: `aswhom connect` makes the link for a person")


@command(accounts)
@click.argument("id")
def show(at: Installation, out: Output, id: str) -> None:
    """One account, by its id or as TENANT/CONNECTION/PRINCIPAL."""
    row = at.read(lambda c: queries.account(c, id))
    if out.as_json:
        out.document(row)
        return
    out.sentence(f"{row['id']}: {row['principal']} of {row['tenant_id']} at {row['provider']}, {row['state']}")
    if row["reason"]:
        out.sentence(f"because {row['reason']}")
    facts = ("credential", "external_login", "external_id", "generation", "consented", "scopes", "expires_at")
    out.table([{"": fact.replace("_", " "), "is": row[fact]} for fact in facts], ("", "is"))


@click.command()
@click.option("--tenant", required=True)
@click.option("--user", required=True, help="Her name, or the id of her principal; made if it is new.")
@click.option("--connection", required=True, help="The id of a provider connection, or a provider.")
@click.option("--scopes", callback=names, help="What to ask for: a,b,c.  [default: the connection's]")
@invocation
def connect(
    at: Installation, out: Output, tenant: str, user: str, connection: str, scopes: tuple[str, ...] | None
) -> None:
    """Print the link by which a person connects an account. It is good once, in one browser, for some minutes."""
    principal, now = user_id(tenant, user), at.now()
    owner = at.read(lambda c: queries.fitting_connection(c, tenant, connection))
    at.write(lambda c: ensure_user(c, tenant, principal, now=now))
    key = AccountKey(tenant=tenant, connection=owner.id, principal=principal)
    link = at.runtime.connect.start(key, now=now, scopes=scopes)
    url = f"{at.settings.base_url}/connect/{link.id}"
    out.done(
        f"{url}\nGive it to {principal} alone, until {link.expires_at.astimezone():%H:%M}.",
        {"url": url, "principal": principal, "connection": owner.id, "expires_at": link.expires_at},
    )
