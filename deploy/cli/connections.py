"""`connections`: client registrations with providers, and their URLs."""

from __future__ import annotations

import click

from deploy import provider_page
from deploy.cli.command import YES, command, confirm, names, pairs, secret_option
from deploy.cli.output import Output
from deploy.cli.secret_checks import check_secret
from deploy.cli.stops import stop_and_open
from deploy.installation import Installation
from identity.connect.barred import barred
from identity.connections.discovery import discover
from identity.connections.registration import Change, Registration, register, service_account
from identity.connections.registry import get_connection
from identity.connections.secrets import CLIENT_SECRET, PRIVATE_KEY, WEBHOOK_SECRET, client_secret_name, live_secrets
from identity.errors import BadInput
from identity.model import Scope, ScopeKind
from identity.providers import PROFILES, profile_of
from identity.providers.profile import ClientAuth
from identity.secret import Secret
from pipeline.desk import connection_secrets
from pipeline.desk import connections as acts
from pipeline.views import connection_facts, operator_queries
from webhooks.sources import SOURCES


@click.group()
def connections() -> None:
    """Client registrations with providers: client id, secrets, scopes, URLs."""


@command(connections, "providers")
@click.option("--page", is_flag=True, help="Print docs/providers.md.")
def list_providers(at: Installation, out: Output, page: bool) -> None:
    """List the built-in providers and what is known of each."""
    if page and out.as_json:
        raise click.UsageError("--page prints a page in Markdown: leave out --json.")
    if page:
        print(provider_page.render(PROFILES), end="")
        return
    rows = [provider_page.summary(profile) for profile in PROFILES.values()]
    out.rows(rows, tuple(rows[0]), empty="None")


@command(connections)
@click.argument("provider")
@click.option("--id", help="Its id here, also used in URLs.  [default: the provider's name]")
@click.option("--tenant", help="The tenant that owns it.  [default: the platform, for all tenants]")
@click.option("--client-id", help="Not needed if it only acts by a key or a service account.")
@secret_option("--client-secret-file", help="The client secret.")
@secret_option("--webhook-secret-file", help="The secret the provider signs its deliveries with.")
@secret_option("--private-key-file", help="A PEM key: a GitHub App's, or the one that signs assertions.")
@secret_option("--service-account-file", help="The JSON key file of a Google service account.")
@click.option("--scopes", callback=names, help="Scopes to ask people for: a,b,c.")
@click.option("--issuer", help="Discover the URLs from this issuer's metadata.")
@click.option("--client-auth", type=click.Choice([*ClientAuth]), help="[default: the provider's]")
@click.option("--api-url", help="[default: the provider's]")
@click.option("--authorize-url", help="[default: the provider's]")
@click.option("--token-url", help="[default: the provider's]")
@click.option("--config", multiple=True, metavar="NAME=VALUE", help="What else the provider needs: app_id=…, key_id=…")
def add(
    at: Installation,
    out: Output,
    provider: str,
    id: str | None,
    tenant: str | None,
    client_id: str | None,
    client_secret_file: Secret | None,
    webhook_secret_file: Secret | None,
    private_key_file: Secret | None,
    service_account_file: Secret | None,
    scopes: tuple[str, ...] | None,
    issuer: str | None,
    client_auth: str | None,
    api_url: str | None,
    authorize_url: str | None,
    token_url: str | None,
    config: tuple[str, ...],
) -> None:
    """Add a connection to PROVIDER, one of `aswhom connections providers`.

    It prints the webhook URL, if we receive any of the provider's webhooks, and the redirect URI to register there.
    """
    profile = profile_of(PROFILES, provider)
    chosen = {"client_auth": client_auth} if client_auth else {}
    if service_account_file is not None:
        private_key_file, named = service_account(service_account_file)
        chosen |= named
    metadata = discover(at.http, issuer) if issuer else None
    owner = register(
        Registration(
            id=id or provider,
            tenant=tenant,
            client_id=client_id or chosen.get("service_account", ""),
            scopes=scopes or (),
            api_url=api_url,
            authorize_url=authorize_url,
            token_url=token_url,
            config=chosen | pairs(config),
        ),
        profile,
        at.http.policy,
        metadata=metadata,
        has_secret=client_secret_file is not None,
        has_key=private_key_file is not None,
    )
    files = {CLIENT_SECRET: client_secret_file, WEBHOOK_SECRET: webhook_secret_file, PRIVATE_KEY: private_key_file}
    given = {name: secret for name, secret in files.items() if secret is not None}
    for name, secret in given.items():
        check_secret(owner, name, secret)
    act = at.act()
    sealed = connection_secrets.seal(at.vault, owner, given, ids=at.ids, now=act.now)
    at.write(lambda c: acts.add(c, owner, sealed, act))
    base, nobody = at.settings.base_url, at.read(lambda c: barred(c, owner))
    document = {
        "id": owner.id,
        "provider": provider,
        "tenant": tenant,
        "secrets": list(given),
        "webhook_url": f"{base}/webhooks/{provider}/{owner.id}" if provider in SOURCES else None,
        "redirect_uri": None if nobody else f"{base}/connect/callback/{owner.id}",
    }
    told = f"provider connection {owner.id}"
    if document["webhook_url"] or document["redirect_uri"]:
        told += (
            f"; tell {profile.title} these:\n"
            f"  webhooks to      {document['webhook_url'] or 'nowhere: none of its webhooks is received yet'}\n"
            f"  people back to   {document['redirect_uri'] or f'nowhere: {nobody}'}"
        )
    out.done(told, document)
    _note_rivals(at, out, owner.id)


@command(connections)
@click.argument("id")
def show(at: Installation, out: Output, id: str) -> None:
    """Show one connection: its URLs, and the ids of its secrets with the preferred one first."""
    row = at.read(lambda c: connection_facts.whole(c, id))
    if out.as_json:
        out.document(row)
        return
    out.sentence(f"{row['id']}: {row['client_id']} at {row['provider']}, {row['tenant_id'] or 'for all tenants'}")
    if row["paused_reason"]:
        out.sentence(f"paused because {row['paused_reason']}: `aswhom connections resume {row['id']}`")
    facts = ("scopes", "api_url", "authorize_url", "token_url", "config")
    out.table([{"": fact.replace("_", " "), "is": row[fact]} for fact in facts], ("", "is"))
    out.table(row["secrets"], ("id", "name", "key_id", "used_from", "refused_at", "retired_at"))


@command(connections, "discover")
@click.argument("id")
def discover_again(at: Installation, out: Output, id: str) -> None:
    """Read the issuer's metadata again, and use the URLs it names from now on.

    If the token endpoint changed, a paused connection is resumed.
    """
    owner = at.read(lambda c: get_connection(c, id))
    if not (issuer := owner.config.get("issuer")):
        raise BadInput(f"{id} has no issuer: its addresses were given, not discovered")
    found = discover(at.http, issuer)
    act = at.act()
    before, after = at.write(lambda c: acts.readdress(c, id, found, act))
    out.done(f"{id} uses {after.token_url}", {"id": id, "changed": before != after, "token_url": after.token_url})


@command(connections, "set")
@click.argument("id")
@click.option("--client-id", help="The new client id.")
@click.option("--scopes", callback=names, help="Scopes to ask people for from now on: a,b,c.")
@click.option("--config", multiple=True, metavar="NAME=VALUE", help="What else the provider needs: app_id=…, key_id=…")
def correct(
    at: Installation,
    out: Output,
    id: str,
    client_id: str | None,
    scopes: tuple[str, ...] | None,
    config: tuple[str, ...],
) -> None:
    """Correct a connection immediately. Options that are not given leave their value unchanged.

    Accounts keep the scopes they were granted: a reconnect asks for what waiting jobs lack, and service accounts have
    to be added again. The client or app cannot be changed once somebody has connected, and URLs never can. Instead,
    remove the connection while nothing refers to it, and add it again.
    """
    change = Change(client_id=client_id, scopes=scopes, config=pairs(config))
    if change == Change():
        raise BadInput("say what to change: --scopes, --client-id or --config")
    before = at.read(lambda c: get_connection(c, id))
    if before.provider not in PROFILES:
        raise BadInput(f"{id} is a sender of your own: remove it, and add it again as it should be")
    profile = profile_of(PROFILES, before.provider)
    act = at.act()
    changed = at.write(lambda c: acts.change(c, id, change, profile, at.http.policy, act))
    told = f"{id}: changed {', '.join(changed) or 'nothing'}"
    if "client_id" in changed:  # a connect may be under way, and its tokens have to be ended as the former client
        name = client_secret_name(at.read(lambda c: get_connection(c, id)))
        told += (
            f"\ngive its secret: `aswhom connections rotate-secret {id} --name {name} --file FILE --retire-at +1d`. "
            "The former client's secret stays live for a day, to end tokens that a connect has obtained meanwhile"
        )
    if "config.key_id" in changed:
        own = sorted(one.key_id for one in at.read(lambda c: live_secrets(c, id, PRIVATE_KEY)) if one.key_id)
        if own:
            told += f"\nkeys that have a key id of their own sign by that as before: {', '.join(own)}"
    out.done(told, {"id": id, "changed": changed})


@command(connections, "remove")
@click.argument("id")
@YES
def remove(at: Installation, out: Output, id: str, yes: bool) -> None:
    """Remove a connection and its secrets, if nothing refers to it yet.

    One that was used can only be corrected or stopped.
    """
    confirm(f"Remove {id}, and its secrets?", yes=yes)
    act = at.act()
    at.write(lambda c: acts.remove(c, id, act))
    out.done(f"{id} is removed", {"id": id})


@command(connections, "name-people")
@click.argument("id")
@click.argument("name")
def name_people(at: Installation, out: Output, id: str, name: str) -> None:
    """Identify a connection's users under NAME, for a server that numbers its users independently.

    Links made by its connects move there. Links that an admin made under the old name stay.
    """
    act = at.act()
    moved = at.write(lambda c: acts.name_people(c, id, name, act))
    out.done(f"users of {id} are known as {name}'s; links moved: {moved}", {"id": id, "people": name, "moved": moved})


@command(connections, "list")
def list_connections(at: Installation, out: Output) -> None:
    """List the connections and the secrets each has."""
    rows = at.read(operator_queries.all_connections)
    columns = ("id", "provider", "tenant_id", "client_id", "secrets", "scopes", "api_url", "paused_reason")
    out.rows(rows, columns, empty="No provider connection yet: `aswhom connections add --help`")


@command(connections, "resume")
@click.argument("id")
def resume(at: Installation, out: Output, id: str) -> None:
    """Fetch tokens through a connection again, once the cause of the provider's refusal of our client is fixed there.

    A new secret or key (`rotate-secret`, `add-secret`), another client or signing method (`set`) and another token
    endpoint (`discover`) resume it without this command. Late answers to earlier requests do not pause it again.
    """
    act = at.act()
    resumed = at.write(lambda c: acts.resume(c, id, act))
    out.done(f"{id} is in use again" if resumed else f"{id} is in use already", {"id": id})


def _connection_scope(at: Installation, id: str) -> tuple[Scope, str | None]:
    found = at.read(lambda c: operator_queries.provider_connection(c, id))
    return Scope(kind=ScopeKind.CONNECTION, key=found["id"]), found["tenant_id"]


def _note_rivals(at: Installation, out: Output, id: str) -> None:
    """Note competing connections, which are easily overlooked because each is valid by itself."""
    if (rivals := at.read(lambda c: connection_facts.rivals_of(c, id))) is not None:
        out.note(f"note: {rivals}")


stop_and_open(connections, _connection_scope, what="provider connection", then=_note_rivals)
