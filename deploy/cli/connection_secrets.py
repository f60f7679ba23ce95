"""`connections …-secret`: a provider connection's secrets and their rotation."""

from __future__ import annotations

from datetime import datetime

import click

from deploy.cli.command import MOMENT, YES, command, confirm, secret_option
from deploy.cli.connections import connections
from deploy.cli.output import Output
from deploy.cli.secret_checks import check_secret, key_with_id
from deploy.installation import Installation
from deploy.local_times import local_time
from identity.connections.registry import get_connection
from identity.connections.secrets import CLIENT_SECRET, PRIVATE_KEY, WEBHOOK_SECRET, live_secrets, seal_secret
from identity.errors import BadInput
from identity.secret import Secret
from pipeline.desk import connection_secrets as acts

_KEY_ID = click.option("--key-id", help="The provider's id of this private key, used as `kid` when signing.")


@command(connections, "add-secret")
@click.argument("id")
@click.option("--name", type=click.Choice([CLIENT_SECRET, WEBHOOK_SECRET, PRIVATE_KEY]), required=True)
@secret_option("--file", help="The new secret.", required=True)
@_KEY_ID
def add_secret_to(at: Installation, out: Output, id: str, name: str, file: Secret, key_id: str | None) -> None:
    """Add another secret and use it from now on. Earlier ones still verify until they are retired."""
    owner = at.read(lambda c: get_connection(c, id))
    live = at.read(lambda c: live_secrets(c, id, name))
    file, key_id = key_with_id(owner, name, file, key_id, live=live)
    check_secret(owner, name, file)
    act = at.act()
    sealed = seal_secret(at.vault, owner, id=at.ids("sec"), name=name, secret=file, now=act.now, key_id=key_id)
    at.write(lambda c: acts.add(c, sealed, act, tenant=owner.tenant))
    out.done(f"{name} {sealed.id} of {id} is used from now on", {"id": sealed.id, "connection": id, "name": name})


@command(connections, "rotate-secret")
@click.argument("id")
@click.option("--name", type=click.Choice([CLIENT_SECRET, PRIVATE_KEY]), default=CLIENT_SECRET)
@secret_option("--file", help="The new secret.", required=True)
@_KEY_ID
@click.option("--switch-at", type=MOMENT, help="When the new one takes precedence.  [default: now]")
@click.option("--retire-at", type=MOMENT, help="When the old one ends.  [default: when `retire-secret` ends it]")
def rotate(
    at: Installation,
    out: Output,
    id: str,
    name: str,
    file: Secret,
    key_id: str | None,
    switch_at: datetime | None,
    retire_at: datetime | None,
) -> None:
    """Replace a secret. Both stay live meanwhile, and if the provider refuses one, the other is tried."""
    act = at.act()
    now = act.now
    switch = max(switch_at or now, now)
    if retire_at is not None and retire_at <= switch:
        raise BadInput("the old secret ends before the new one is used: choose a later --retire-at")
    owner = at.read(lambda c: get_connection(c, id))
    live = at.read(lambda c: live_secrets(c, id, name))
    file, key_id = key_with_id(owner, name, file, key_id, live=live)
    check_secret(owner, name, file)
    sealed = seal_secret(
        at.vault, owner, id=at.ids("sec"), name=name, secret=file, now=now, used_from=switch, key_id=key_id
    )
    former = at.write(lambda c: acts.rotate(c, sealed, act, tenant=owner.tenant, retire_at=retire_at))
    document = {
        "id": sealed.id,
        "connection": id,
        "name": name,
        "used_from": switch,
        "former": list(former),
        "retire_at": retire_at,
    }
    ends = f"until {local_time(retire_at)}" if retire_at else "until `aswhom connections retire-secret` ends it"
    out.done(
        f"{name} {sealed.id} of {id} is used first from {local_time(switch)}"
        + (f"; {former[0]} stays live {ends}" if former else ""),
        document,
    )


@command(connections, "retire-secret")
@click.argument("secret_id")
@YES
def retire(at: Installation, out: Output, secret_id: str, yes: bool) -> None:
    """Retire a secret: anything signed with it is refused from now on."""
    confirm(f"Retire {secret_id}?", yes=yes)
    act = at.act()
    at.write(lambda c: acts.retire(c, secret_id, act))
    out.done(f"{secret_id} is retired", {"id": secret_id})
