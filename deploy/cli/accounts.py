"""`accounts` and `connect`: connected accounts of people, and the credentials by which services act."""

from __future__ import annotations

import click

from deploy.cli import queries
from deploy.cli.command import command, invocation, names, secret_option
from deploy.cli.output import Output
from deploy.cli.tenants import ensure_user, user_id
from deploy.installation import Installation
from identity.consents import connect_service
from identity.model import AccountKey, Credential
from identity.principals import service_principal
from identity.secret import Secret
from pipeline.connecting import wake_waiting


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
    facts = (
        "credential",
        "external_login",
        "external_id",
        "generation",
        "consented",
        "scopes",
        "expires_at",
        "used_at",
        "keepalive_due",
        "keepalive_error",
    )
    out.table([{"": fact.replace("_", " "), "is": row[fact]} for fact in facts], ("", "is"))


def _connect_service(
    at: Installation,
    out: Output,
    tenant: str,
    connection: str,
    credential: Credential,
    *,
    scopes: tuple[str, ...] | None,
    token: Secret | None = None,
    external_id: str | None = None,
) -> None:
    """An admin's consent for the tenant's service principal. The jobs that waited for it go on."""
    owner, service = at.read(
        lambda c: (queries.fitting_connection(c, tenant, connection), service_principal(c, tenant))
    )
    key = AccountKey(tenant=tenant, connection=owner.id, principal=service.id)
    consented = connect_service(
        at.ledger,
        at.vault,
        key,
        id=at.ids("acc"),
        provider=owner.provider,
        credential=credential,
        scopes=owner.scopes if scopes is None else scopes,
        by=at.operator,
        audit_id=at.ids("aud"),
        now=at.now(),
        token=token,
        external_id=external_id,
        also=wake_waiting,
    )
    out.done(
        f"account {consented.account}: {service.id} acts at {owner.provider} by its own {credential} credential",
        {"id": consented.account, "key": str(key), "credential": str(credential), "generation": consented.generation},
    )


@command(accounts, "add-installation")
@click.option("--tenant", required=True)
@click.option("--connection", required=True, help="The id of a provider connection, or a provider.")
@click.option("--installation", "external_id", required=True, help="The provider's id of the installation.")
@click.option("--permissions", callback=names, help="What it may do, as scopes.  [default: the connection's]")
def add_installation(
    at: Installation, out: Output, tenant: str, connection: str, external_id: str, permissions: tuple[str, ...] | None
) -> None:
    """Let the tenant's service act by tokens of a GitHub App's installation."""
    _connect_service(at, out, tenant, connection, Credential.INSTALLATION, scopes=permissions, external_id=external_id)


@command(accounts, "add-static")
@click.option("--tenant", required=True)
@click.option("--connection", required=True, help="The id of a provider connection, or a provider.")
@secret_option("--token-file", help="A bot token or key that does not expire.", required=True)
@click.option("--scopes", callback=names, help="What it may do: a,b,c.  [default: the connection's]")
@click.option("--external-id", help="The provider's id of the workspace or bot, so that its signals are understood.")
def add_static(
    at: Installation,
    out: Output,
    tenant: str,
    connection: str,
    token_file: Secret,
    scopes: tuple[str, ...] | None,
    external_id: str | None,
) -> None:
    """Let the tenant's service act by a token that stays the same."""
    _connect_service(
        at, out, tenant, connection, Credential.STATIC, scopes=scopes, token=token_file, external_id=external_id
    )


@command(accounts, "add-client-credentials")
@click.option("--tenant", required=True)
@click.option("--connection", required=True, help="The id of a provider connection, or a provider.")
@click.option("--scopes", callback=names, help="What it may do: a,b,c.  [default: the connection's]")
def add_client_credentials(
    at: Installation, out: Output, tenant: str, connection: str, scopes: tuple[str, ...] | None
) -> None:
    """Let the tenant's service act by the connection's own client credentials (RFC 6749 §4.4)."""
    _connect_service(at, out, tenant, connection, Credential.CLIENT_CREDENTIALS, scopes=scopes)


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
