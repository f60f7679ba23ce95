"""`connections` and `installations`: client registrations with providers, and whose an installation is."""

from __future__ import annotations

import click
from sqlalchemy import Connection

from deploy.cli import queries
from deploy.cli.command import command, confirm, names, secret_option
from deploy.cli.output import Output
from deploy.cli.senders import check_webhook_secret, pairs, sender_commands
from deploy.cli.stops import stop_and_open
from deploy.installation import Installation
from identity.connections import (
    CLIENT_SECRET,
    PRIVATE_KEY,
    WEBHOOK_SECRET,
    add_connection,
    add_installation,
    add_secret,
    get_connection,
    resume_connection,
    retire_secret,
    seal_secret,
)
from identity.errors import BadInput
from identity.model import ProviderConnection, Scope, ScopeKind
from identity.principals import checked_id
from identity.providers import PROFILES, profile_of
from identity.secret import Secret
from webhooks.sources import SOURCES


@click.group()
def connections() -> None:
    """Client registrations with providers: an id, secrets, scopes, addresses."""


@command(connections)
@click.argument("provider")
@click.option("--id", help="How it is called here, in URLs too.  [default: the provider's name]")
@click.option("--tenant", help="Whose it is.  [default: the platform's, for all tenants]")
@click.option("--client-id", required=True)
@secret_option("--client-secret-file", help="The client secret.")
@secret_option("--webhook-secret-file", help="What the provider signs its deliveries with.")
@secret_option("--private-key-file", help="A GitHub App's key, in PEM.")
@click.option("--scopes", callback=names, help="What to ask people for: a,b,c.")
@click.option("--api-url", help="[default: the provider's]")
@click.option("--authorize-url", help="[default: the provider's]")
@click.option("--token-url", help="[default: the provider's]")
@click.option("--config", multiple=True, metavar="NAME=VALUE", help="What else the provider needs: app_id=…, issuer=…")
def add(
    at: Installation,
    out: Output,
    provider: str,
    id: str | None,
    tenant: str | None,
    client_id: str,
    client_secret_file: Secret | None,
    webhook_secret_file: Secret | None,
    private_key_file: Secret | None,
    scopes: tuple[str, ...] | None,
    api_url: str | None,
    authorize_url: str | None,
    token_url: str | None,
    config: tuple[str, ...],
) -> None:
    """Add a connection to PROVIDER: github, linear, slack.

    It says where the provider's webhooks are to come to, if we receive any of it, and where people come back to.
    """
    profile = profile_of(PROFILES, provider)
    owner = ProviderConnection(
        id=checked_id(id or provider),
        tenant=tenant,
        provider=provider,
        client_id=client_id,
        scopes=scopes or (),
        api_url=api_url or profile.api_url,
        authorize_url=authorize_url or profile.authorize_url,
        token_url=token_url or profile.token_url,
        config=pairs(config),
    )
    if webhook_secret_file is not None:
        check_webhook_secret(owner, webhook_secret_file)
    given = {CLIENT_SECRET: client_secret_file, WEBHOOK_SECRET: webhook_secret_file, PRIVATE_KEY: private_key_file}
    now = at.now()
    sealed = [
        seal_secret(at.vault, owner, id=at.ids("sec"), name=name, secret=secret, now=now)
        for name, secret in given.items()
        if secret is not None
    ]

    def write(c: Connection) -> bool:
        if tenant is not None:
            queries.tenant(c, tenant)
        if not add_connection(c, owner, now=now):
            return False
        for secret in sealed:
            add_secret(c, secret)
        return True

    if not at.write(write):
        raise BadInput(f"there is a provider connection {owner.id} already: choose another --id")
    base = at.settings.base_url
    document = {
        "id": owner.id,
        "provider": provider,
        "tenant": tenant,
        "secrets": [secret.name for secret in sealed],
        "webhook_url": f"{base}/webhooks/{provider}/{owner.id}" if provider in SOURCES else None,
        "redirect_uri": f"{base}/connect/callback/{owner.id}",
    }
    out.done(
        f"provider connection {owner.id}; tell {provider} these:\n"
        f"  webhooks to      {document['webhook_url'] or 'nowhere: none of its webhooks is received yet'}\n"
        f"  people back to   {document['redirect_uri']}",
        document,
    )


@command(connections, "list")
def list_connections(at: Installation, out: Output) -> None:
    """The connections, and which secrets each has."""
    rows = at.read(queries.all_connections)
    columns = ("id", "provider", "tenant_id", "client_id", "secrets", "scopes", "api_url", "paused_reason")
    out.rows(rows, columns, empty="No provider connection yet: `aswhom connections add --help`")


@command(connections, "add-secret")
@click.argument("id")
@click.option("--name", type=click.Choice(["client_secret", "webhook_secret", "private_key"]), required=True)
@secret_option("--file", help="The new secret.", required=True)
def add_secret_to(at: Installation, out: Output, id: str, name: str, file: Secret) -> None:
    """Add a further secret, which is used from now on; the earlier ones still verify until they are retired."""
    owner = at.read(lambda c: get_connection(c, id))
    if name == WEBHOOK_SECRET:
        check_webhook_secret(owner, file)
    sealed = seal_secret(at.vault, owner, id=at.ids("sec"), name=name, secret=file, now=at.now())

    def write(c: Connection) -> None:
        add_secret(c, sealed)

    at.write(write)
    out.done(f"{name} {sealed.id} of {id} is used from now on", {"id": sealed.id, "connection": id, "name": name})


@command(connections, "retire-secret")
@click.argument("secret_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
def retire(at: Installation, out: Output, secret_id: str, yes: bool) -> None:
    """End a secret's life: what is signed with it is refused from now on."""
    confirm(f"Retire {secret_id}?", yes=yes)
    now = at.now()
    if not at.write(lambda c: retire_secret(c, secret_id, at=now)):
        raise BadInput(f"there is no secret {secret_id}")
    out.done(f"{secret_id} is retired", {"id": secret_id})


@command(connections, "resume")
@click.argument("id")
def resume(at: Installation, out: Output, id: str) -> None:
    """Fetch tokens through it again, after the provider refused our client and the cause is mended."""

    def write(c: Connection) -> None:
        queries.provider_connection(c, id)
        resume_connection(c, id)

    at.write(write)
    out.done(f"{id} is in use again", {"id": id})


def _connection_scope(at: Installation, id: str) -> tuple[Scope, str | None]:
    found = at.read(lambda c: queries.provider_connection(c, id))
    return Scope(kind=ScopeKind.CONNECTION, key=found["id"]), found["tenant_id"]


sender_commands(connections)
stop_and_open(connections, _connection_scope, what="provider connection")


@click.group()
def installations() -> None:
    """Whose an installation of the platform's app is: the tenant of a delivery is found by it."""


@command(installations, "add")
@click.argument("connection")
@click.argument("external_id")
@click.argument("tenant")
def add_installation_of(at: Installation, out: Output, connection: str, external_id: str, tenant: str) -> None:
    """Say that installation (or workspace, or organization) EXTERNAL_ID of CONNECTION is TENANT's."""
    now = at.now()

    def write(c: Connection) -> bool:
        queries.provider_connection(c, connection)
        queries.tenant(c, tenant)
        return add_installation(c, owner=connection, external_id=external_id, tenant=tenant, now=now)

    if not at.write(write):
        raise BadInput(f"whose installation {external_id} is was said before: see `aswhom installations list`")
    document = {"connection": connection, "external_id": external_id, "tenant": tenant}
    out.done(f"installation {external_id} of {connection} is {tenant}'s", document)


@command(installations, "list")
def list_installations(at: Installation, out: Output) -> None:
    """Whose is which."""
    columns = ("connection_id", "external_id", "tenant_id", "created_at")
    out.rows(at.read(queries.all_installations), columns, empty="None yet: `aswhom installations add`")
