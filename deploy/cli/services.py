"""`accounts add-…`: the credentials of a tenant's service, each added with an admin's consent.

Importing this module also registers the group's other commands, so the list of commands names it.
"""

from __future__ import annotations

import click
from sqlalchemy import Connection

from deploy.cli.accounts import accounts
from deploy.cli.command import command, names, secret_option
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.accounts.states import find_account
from identity.connect.consents import connect_service
from identity.connections.secrets import PRIVATE_KEY, live_secrets
from identity.errors import BadInput
from identity.minting.service_credential import ServiceCredential
from identity.model import AccountKey, Credential, ProviderConnection
from identity.principals import service_principal
from identity.providers import PROFILES, profile_of
from identity.providers.permissions import permissions as as_permissions
from identity.secret import Secret
from pipeline.accounts.connecting import wake_waiting
from pipeline.desk.tenants import list_own
from pipeline.views import operator_queries


def _connect_service(
    at: Installation,
    out: Output,
    tenant: str,
    connection: str,
    credential: ServiceCredential,
    *,
    scopes: tuple[str, ...] | None,
    replace: bool = False,
) -> None:
    """Store an admin's consent for the tenant's service principal, and wake the jobs that waited for it.

    *scopes* None means the provider connection's.
    """
    owner, service = at.read(
        lambda c: (operator_queries.fitting_connection(c, tenant, connection), service_principal(c, tenant))
    )
    key = AccountKey(tenant=tenant, connection=owner.id, principal=service.id)
    act = at.act()
    before = at.read(lambda c: find_account(c, key))
    instead_of = before.external_id if replace and before is not None else None
    changes: list[str] = []

    def also(c: Connection, of: AccountKey) -> None:
        wake_waiting(c, of)
        if credential.kind is Credential.INSTALLATION and credential.external_id is not None:
            place = {"connection_id": owner.id, "external_id": credential.external_id, "tenant": tenant}
            changes[:] = list_own(c, act, **place, instead_of=instead_of)  # replaced: the transaction may run again

    consented = connect_service(
        at.ledger,
        at.vault,
        key,
        credential,
        act,
        id=at.ids("acc"),
        provider=owner.provider,
        scopes=owner.scopes if scopes is None else scopes,
        also=also,
        replace=replace,
    )
    done = f"account {consented.account}: {service.id} acts at {owner.provider} by its own {credential.kind} credential"
    out.done(
        ". ".join((done, *changes)),
        {
            "id": consented.account,
            "key": str(key),
            "credential": str(credential.kind),
            "generation": consented.generation,
        },
    )


_REPLACE = click.option("--replace", is_flag=True, help="Replace the one it has acted through until now.")


@command(accounts, "add-installation")
@click.option("--tenant", required=True)
@click.option("--connection", required=True, help="The id of a provider connection, or a provider.")
@click.option("--installation", "external_id", required=True, help="The provider's id of the installation.")
@click.option(
    "--permissions", callback=names, help="Permissions of its tokens, as scopes.  [default: the connection's]"
)
@click.option(
    "--repositories", callback=names, help="Repositories its tokens are limited to: a,b,c.  [default: all it has]"
)
@_REPLACE
def add_installation(
    at: Installation,
    out: Output,
    tenant: str,
    connection: str,
    external_id: str,
    permissions: tuple[str, ...] | None,
    repositories: tuple[str, ...] | None,
    replace: bool,
) -> None:
    """Let the tenant's service act by tokens of a GitHub App installation, limited as given here."""
    if named := next((one for one in repositories or () if "/" in one), None):
        raise BadInput(f"--repositories takes names without their owner: {named.rpartition('/')[2]}, not {named}")
    if repositories == ():
        raise BadInput("--repositories names none: leave it out for all that the installation has")
    if permissions is not None and as_permissions(permissions) is None:
        raise BadInput("--permissions are written as issues:write,contents:read; leave it out for the connection's")
    if lacking := at.read(lambda c: _no_app(c, operator_queries.fitting_connection(c, tenant, connection))):
        raise BadInput(lacking)
    credential = ServiceCredential(
        kind=Credential.INSTALLATION, external_id=external_id, resources=repositories, ceiling=permissions
    )
    _connect_service(at, out, tenant, connection, credential, scopes=permissions, replace=replace)


def _no_app(connection: Connection, owner: ProviderConnection) -> str | None:
    """Return what the connection lacks to sign as an App and how to supply it, or None."""
    profile = profile_of(PROFILES, owner.provider)
    if not profile.installation_of_app:
        return f"{profile.title} gives no tokens for installations: see `aswhom accounts --help` for another credential"
    lacks = []
    if not owner.config.get("app_id", owner.client_id):
        lacks.append(f"the App's id (`aswhom connections set {owner.id} --config app_id=ID`)")
    if not live_secrets(connection, owner.id, PRIVATE_KEY):
        lacks.append(
            f"its private key (`aswhom connections rotate-secret {owner.id} --name {PRIVATE_KEY} --file FILE`)"
        )
    return f"{owner.id} cannot ask for an installation's tokens: it lacks {' and '.join(lacks)}" if lacks else None


@command(accounts, "add-static")
@click.option("--tenant", required=True)
@click.option("--connection", required=True, help="The id of a provider connection, or a provider.")
@secret_option("--token-file", help="A bot token or key that does not expire.", required=True)
@click.option("--scopes", callback=names, help="What it may do: a,b,c.  [default: the connection's]")
@click.option("--external-id", help="The provider's id of the workspace or bot, so that its signals are understood.")
@_REPLACE
def add_static(
    at: Installation,
    out: Output,
    tenant: str,
    connection: str,
    token_file: Secret,
    scopes: tuple[str, ...] | None,
    external_id: str | None,
    replace: bool,
) -> None:
    """Let the tenant's service act by a token that does not expire."""
    credential = ServiceCredential(kind=Credential.STATIC, token=token_file, external_id=external_id)
    _connect_service(at, out, tenant, connection, credential, scopes=scopes, replace=replace)


@command(accounts, "add-client-credentials")
@click.option("--tenant", required=True)
@click.option("--connection", required=True, help="The id of a provider connection, or a provider.")
@click.option("--scopes", callback=names, help="What it may do: a,b,c.  [default: the connection's]")
def add_client_credentials(
    at: Installation, out: Output, tenant: str, connection: str, scopes: tuple[str, ...] | None
) -> None:
    """Let the tenant's service act by the connection's own client credentials (RFC 6749 §4.4)."""
    credential = ServiceCredential(kind=Credential.CLIENT_CREDENTIALS)
    _connect_service(at, out, tenant, connection, credential, scopes=scopes)


@command(accounts, "add-jwt-bearer")
@click.option("--tenant", required=True)
@click.option("--connection", required=True, help="The id of a provider connection, or a provider.")
@click.option("--subject", help="The user it acts as, if the provider lets a service act as a user.")
@click.option("--scopes", callback=names, help="What it may do: a,b,c.  [default: the connection's]")
def add_jwt_bearer(
    at: Installation, out: Output, tenant: str, connection: str, subject: str | None, scopes: tuple[str, ...] | None
) -> None:
    """Let the tenant's service act by assertions that the connection's private key signs (RFC 7523 §2.1)."""
    owner = at.read(lambda c: operator_queries.fitting_connection(c, tenant, connection))
    profile = profile_of(PROFILES, owner.provider)
    if profile.assertion is None:
        raise BadInput(f"{profile.title} has no JWT bearer grant")
    if profile.assertion.needs_subject and not subject:
        raise BadInput(f"{profile.title} requires a user to act as: give --subject")
    credential = ServiceCredential(kind=Credential.JWT_BEARER, external_id=subject)
    # Always replaceable: a subject, unlike an installation or workspace, is not a place that signals come from.
    _connect_service(at, out, tenant, connection, credential, scopes=scopes, replace=True)


@command(accounts, "add-rotating")
@click.option("--tenant", required=True)
@click.option("--connection", required=True, help="The id of a provider connection, or a provider.")
@secret_option("--token-file", help="A bot token that expires.", required=True)
@secret_option("--refresh-token-file", help="Its refresh token.", required=True)
@click.option("--scopes", callback=names, help="What it may do: a,b,c.  [default: the connection's]")
@click.option("--external-id", help="The provider's id of the workspace or bot, so that its signals are understood.")
@_REPLACE
def add_rotating(
    at: Installation,
    out: Output,
    tenant: str,
    connection: str,
    token_file: Secret,
    refresh_token_file: Secret,
    scopes: tuple[str, ...] | None,
    external_id: str | None,
    replace: bool,
) -> None:
    """Let the tenant's service act by a rotating bot token. It is refreshed before its first use, and from then on."""
    credential = ServiceCredential(
        kind=Credential.ROTATING, token=token_file, refresh_token=refresh_token_file, external_id=external_id
    )
    _connect_service(at, out, tenant, connection, credential, scopes=scopes, replace=replace)
