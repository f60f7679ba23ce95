"""`connections add-sender` and `rotate-webhook-secret`: webhook senders and their signing secrets."""

from __future__ import annotations

import base64
import os
import secrets
from datetime import timedelta
from pathlib import Path

import click

from deploy.cli.command import YES, command, confirm, pairs, secret_option
from deploy.cli.connections import connections
from deploy.cli.output import Output
from deploy.cli.secret_checks import check_webhook_secret
from deploy.installation import Installation
from deploy.local_times import local_time
from identity.connections.registry import get_connection
from identity.connections.secrets import WEBHOOK_SECRET, seal_secret
from identity.errors import BadInput
from identity.model import ProviderConnection
from identity.principals import checked_id
from identity.secret import Secret
from pipeline.desk import connection_secrets as secret_acts
from pipeline.desk import connections as acts
from pipeline.ledger.clock import ledger_now

DESCRIBED = ("standard", "hmac")  # senders we only receive from, without tokens for calling them
MADE_BY_THE_SENDER = ("linear", "slack")


@command(connections, "add-sender")
@click.argument("kind", type=click.Choice(DESCRIBED))
@click.option("--id", required=True, help="Its id here, also used in its URL.")
@click.option("--tenant", required=True, help="The tenant that owns everything it sends.")
@secret_option("--webhook-secret-file", help="The secret it signs its deliveries with.", required=True)
@click.option(
    "--config", multiple=True, metavar="NAME=VALUE", help="How it signs, and the name that workflows listen to."
)
def add_sender(
    at: Installation,
    out: Output,
    kind: str,
    id: str,
    tenant: str,
    webhook_secret_file: Secret,
    config: tuple[str, ...],
) -> None:
    """Receive webhooks from your own sender.

    KIND is `standard` (Standard Webhooks) or `hmac` (a scheme described by --config).
    """
    owner = ProviderConnection(
        id=checked_id(id),
        tenant=tenant,
        provider=kind,
        client_id="",
        scopes=(),
        api_url="",
        authorize_url="",
        token_url="",
        config=pairs(config),
    )
    check_webhook_secret(owner, webhook_secret_file)
    act = at.act()
    sealed = secret_acts.seal(at.vault, owner, {WEBHOOK_SECRET: webhook_secret_file}, ids=at.ids, now=act.now)
    at.write(lambda c: acts.add(c, owner, sealed, act))
    url = f"{at.settings.base_url}/webhooks/{kind}/{owner.id}"
    document = {"id": owner.id, "kind": kind, "tenant": tenant, "webhook_url": url}
    out.done(f"sender {owner.id}; let it send to {url}", document)


@command(connections, "rotate-webhook-secret")
@click.argument("id")
@secret_option("--file", help="The new secret, if the sender has made it.")
@click.option(
    "--generate",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Generate the secret, and write it to this new file.",
)
@click.option("--overlap", default=24.0, show_default=True, type=click.FloatRange(0, 24 * 30), metavar="HOURS")
@YES
def rotate(
    at: Installation,
    out: Output,
    id: str,
    file: Secret | None,
    generate: Path | None,
    overlap: float,
    yes: bool,
) -> None:
    """Sign with a new secret: both verify for some hours, then the old one ends by itself."""
    if (file is None) is (generate is None):
        raise click.UsageError("Give either --file or --generate.")
    owner = at.read(lambda c: get_connection(c, id))
    if generate is not None and owner.provider in MADE_BY_THE_SENDER:
        raise BadInput(f"{owner.provider} makes its signing secret itself: make a new one there, and give its --file")
    secret = file or _made(owner)
    check_webhook_secret(owner, secret)
    confirm(f"End the present webhook secret of {id} in {overlap:g} hours?", yes=yes)
    act = at.act()
    until = at.read(ledger_now) + timedelta(hours=overlap)  # the ledger's clock, which decides what verifies
    sealed = seal_secret(at.vault, owner, id=at.ids("sec"), name=WEBHOOK_SECRET, secret=secret, now=act.now)
    if generate is not None:
        # Before it takes effect: if the new secret were lost, every later delivery would be refused.
        _write(generate, secret)
    ending = at.write(lambda c: secret_acts.rotate(c, sealed, act, tenant=owner.tenant, retire_at=until))
    document = {"id": sealed.id, "connection": id, "ending": list(ending), "until": until}
    where = f"; it is in {generate}" if generate else ""
    out.done(
        f"{sealed.id} verifies what {id} sends from now on{where}. "
        + (f"So does {', '.join(ending)} until {local_time(until)}" if ending else "There was none before"),
        document,
    )


def _made(owner: ProviderConnection) -> Secret:
    if owner.provider == "standard":
        return Secret("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())
    if owner.config.get("secret_encoding") == "base64":
        return Secret(base64.b64encode(secrets.token_bytes(32)).decode())
    return Secret(secrets.token_urlsafe(32))


def _write(path: Path, secret: Secret) -> None:
    """Write a secret to a file readable only by its owner. Raise BadInput if it exists or cannot be written."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secret.reveal() + "\n")
    except OSError as error:
        raise BadInput(f"{path} cannot be made: {error.strerror}") from error
