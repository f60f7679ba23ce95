"""`capability`: services that accept capability tokens, their signing keys, and the tokens issued."""

from __future__ import annotations

import secrets

import click
from sqlalchemy import select

from deploy.cli.command import PROBLEM, YES, command, confirm, names
from deploy.cli.output import Output
from deploy.installation import Installation
from deploy.local_times import local_time
from identity.capability import audiences as ledger
from identity.capability import keys as key_ledger
from identity.capability.keys import NewKey
from identity.capability.model import Algorithm, Audience
from identity.capability.tables import audiences as audience_table
from identity.capability.tables import capabilities
from identity.errors import Unconfirmed
from identity.sql.store import write_idempotent
from pipeline.desk import capability_keys as acts
from pipeline.desk.audiences import register
from pipeline.ledger.paging import rows_of

ALGORITHM = click.option(
    "--algorithm",
    type=click.Choice([str(one) for one in Algorithm]),
    default=str(Algorithm.ED25519),
    show_default=True,
    help="ES256 is for services that support nothing else.",
)


@click.group()
def capability() -> None:
    """Capability tokens: permission for one action on one resource, for one step, usable once."""


@capability.group()
def audiences() -> None:
    """Services that accept capability tokens."""


@capability.group("keys")
def keys() -> None:
    """Keys that sign capability tokens."""


@command(audiences)
@click.argument("id")
@click.option("--uri", required=True, help="The aud of its tokens.")
@click.option("--tenant", help="Accept only this tenant's capabilities.  [default: every tenant's]")
@click.option("--provider", help="The provider name of actions that call it. Creates a provider connection ID.")
@click.option("--api-url", default="", help="With --provider: the URL those actions call.")
@click.option("--passes-to", callback=names, help="Audiences it may exchange a token for: a,b,c.")
@ALGORITHM
def add(
    at: Installation,
    out: Output,
    id: str,
    uri: str,
    tenant: str | None,
    provider: str | None,
    api_url: str,
    passes_to: tuple[str, ...] | None,
    algorithm: str,
) -> None:
    """Register a service that accepts capability tokens, and print its introspection secret, which is shown once."""
    if bool(provider) != bool(api_url):
        raise click.UsageError("--provider and --api-url go together")
    secret = ledger.new_secret(secrets.token_urlsafe(32))
    new = Audience(
        id=id,
        uri=uri,
        tenant=tenant,
        connection=id if provider else None,
        algorithm=Algorithm(algorithm),
        passes_to=passes_to or (),
    )
    pair = NewKey.make(new.algorithm, at.vault)
    act = at.act()
    at.write(lambda c: register(c, new, secret, pair, act, provider=provider, api_url=api_url))
    out.note(f"{id} takes capabilities whose aud is {uri}. Its secret for /oauth/introspect is shown this once:")
    out.done(secret.reveal(), {"id": id, "uri": uri, "secret": secret.reveal(), "algorithm": algorithm})


@command(audiences, "list")
def list_audiences(at: Installation, out: Output) -> None:
    """List the services, without their secrets' hashes."""
    columns = [column for column in audience_table.c if not column.name.endswith("_sha256")]
    rows = at.read(lambda c: rows_of(c, select(*columns).order_by(audience_table.c.id)))
    shown = ("id", "uri", "tenant_id", "connection_id", "algorithm", "passes_to", "removed_at")
    out.rows(rows, shown, empty="No service takes capabilities yet: `aswhom capability audiences add`")


@command(audiences)
@click.argument("id")
@YES
def renew(at: Installation, out: Output, id: str, yes: bool) -> int | None:
    """Give a service a new secret and print it, once. The previous one is accepted for another day."""
    confirm(f"Give {id} another secret?", yes=yes)
    secret, act = ledger.new_secret(secrets.token_urlsafe(32)), at.act()
    try:
        until = write_idempotent(at, lambda c: ledger.renew(c, id, secret, act))
    except (KeyboardInterrupt, Unconfirmed):
        # The new secret may be in force. If it were not shown, the service would be locked out.
        out.note(
            f"it is not certain whether this was done. If it was, the former secret of {id} is accepted for a day, and "
            "this is the new one, shown this once. If it is renewed again meanwhile, the former one ends at once:"
        )
        out.done(secret.reveal(), {"id": id, "secret": secret.reveal(), "former_until": None, "certain": False})
        return PROBLEM
    out.note(f"the former secret of {id} is accepted until {local_time(until)}. The new one is shown this once:")
    out.done(secret.reveal(), {"id": id, "secret": secret.reveal(), "former_until": until})
    return None


@command(audiences)
@click.argument("id")
@YES
def remove(at: Installation, out: Output, id: str, yes: bool) -> None:
    """Stop issuing tokens for a service, and stop answering its requests."""
    confirm(f"Remove {id}?", yes=yes)
    act = at.act()
    at.write(lambda c: ledger.remove(c, id, act))
    out.done(f"{id} takes no capabilities any more", {"id": id, "removed_at": act.now})


@command(keys, "list")
def list_keys(at: Installation, out: Output) -> None:
    """List every key and its state."""
    known = at.read(key_ledger.load)
    told = key_ledger.states(known, at.now())
    rows = [
        {"kid": key.kid, "algorithm": key.algorithm, "state": told[key.kid], "use_from": key.use_from} for key in known
    ]
    out.rows(rows, ("kid", "algorithm", "state", "use_from"), empty="No key yet: the first audience makes one")


@command(keys)
@ALGORITHM
def rotate(at: Installation, out: Output, algorithm: str) -> None:
    """Publish a new key. It signs in ten minutes, once cached copies of our key set have been refreshed."""
    pair = NewKey.make(Algorithm(algorithm), at.vault)
    act = at.act()
    use_from = at.write(lambda c: acts.rotate(c, pair, act))
    document = {"kid": pair.kid, "algorithm": algorithm, "use_from": use_from}
    out.done(f"{pair.kid} is published, and signs from {local_time(use_from)} on", document)


@command(keys)
@click.argument("kid")
@YES
def withdraw(at: Installation, out: Output, kid: str, yes: bool) -> None:
    """Stop publishing and trusting a key immediately. Another one signs in its place."""
    confirm(f"Withdraw {kid}? What it has signed is refused from now on.", yes=yes)
    pair = NewKey.make(at.read(lambda c: key_ledger.algorithm_of(c, kid)), at.vault)
    act = at.act()
    successor = at.write(lambda c: acts.withdraw(c, kid, pair, act))
    out.done(
        f"{kid} is withdrawn" + (f"; {successor} signs" if successor else ""),
        {"kid": kid, "withdrawn_at": act.now, "successor": successor},
    )


@command(capability, "list")
@click.option("--tenant")
@click.option("--job")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000))
def list_issued(at: Installation, out: Output, tenant: str | None, job: str | None, limit: int) -> None:
    """List issued tokens, newest first: for what, to whom, and with what outcome. Never the tokens themselves."""
    table = capabilities.c
    statement = select(capabilities).order_by(table.issued_at.desc(), table.jti.desc()).limit(limit + 1)
    if tenant:
        statement = statement.where(table.tenant_id == tenant)
    if job:
        statement = statement.where(table.job_id == job)
    rows = at.read(lambda c: rows_of(c, statement))
    shown = ("jti", "principal_id", "action", "resource", "limit_amount", "expires_at", "spent_at", "outcome")
    out.page(rows, shown, limit=limit, empty="Nothing was issued yet")
