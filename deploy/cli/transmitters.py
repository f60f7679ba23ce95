"""`transmitters`: services that may send Security Event Tokens, and the people their subjects refer to."""

from __future__ import annotations

import click

from deploy.cli.command import YES, command, confirm
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.errors import BadInput
from identity.transmitters import Transmitter
from pipeline.desk import transmitters as acts
from pipeline.views import operator_queries


@click.group()
def transmitters() -> None:
    """Services that may report revocations as Security Event Tokens (RFC 8935)."""


@command(transmitters)
@click.argument("id")
@click.option("--issuer", required=True, help="Its exact iss.")
@click.option(
    "--audience",
    "audiences",
    required=True,
    multiple=True,
    help="What its aud must be or contain: its name for us. Repeatable, if it has several.",
)
@click.option("--jwks-url", required=True, help="URL of its public keys.")
@click.option(
    "--tenant", help="The tenant whose people it reports on. Link them with `aswhom aliases add --provider ID`."
)
@click.option("--connection", help="The provider connection whose accounts its subjects are.")
@click.option("--subject-issuer", help="The iss of its subjects, if it reports on another issuer's people.")
@click.option("--plain-jwt", is_flag=True, help="Accept tokens whose typ is missing or JWT, rather than secevent+jwt.")
def add(
    at: Installation,
    out: Output,
    id: str,
    issuer: str,
    audiences: tuple[str, ...],
    jwks_url: str,
    tenant: str | None,
    connection: str | None,
    subject_issuer: str | None,
    plain_jwt: bool,
) -> None:
    """Let a transmitter send security events to BASE_URL/events/ID.

    An identity provider belongs to a tenant: its revocation of a user ends everything that user granted. Google belongs
    to a provider connection: its revocation ends the account there.
    """
    new = Transmitter(
        id=id,
        issuer=issuer,
        audience=audiences[0],
        other_audiences=audiences[1:],
        jwks_url=jwks_url,
        tenant=tenant,
        connection=connection,
        subject_issuer=subject_issuer,
        plain_jwt=plain_jwt,
    )
    act = at.act()
    at.write(lambda c: acts.add(c, new, act))
    url = f"{at.settings.base_url}/events/{id}"
    out.done(f"transmitter {id}; tell it to push to {url}", {"id": id, "url": url})


@command(transmitters, "set")
@click.argument("id")
@click.option("--audience", "audiences", multiple=True, help="What its aud must be or contain. Repeatable.")
@click.option("--subject-issuer", help="The iss of its subjects. Empty: its own.")
@click.option(
    "--plain-jwt/--secevent-jwt", default=None, help="Whether tokens without the typ secevent+jwt are accepted."
)
def correct(
    at: Installation,
    out: Output,
    id: str,
    audiences: tuple[str, ...],
    subject_issuer: str | None,
    plain_jwt: bool | None,
) -> None:
    """Correct a transmitter's expected token fields immediately.

    Options that are not given leave their value unchanged. The id stays, and with it the transmitter's URL and its
    people's links. The given --audience values replace all existing ones.
    """
    if not audiences and subject_issuer is None and plain_jwt is None:
        raise BadInput("say what to change: --audience, --subject-issuer, --plain-jwt or --secevent-jwt")
    act = at.act()
    now = at.write(
        lambda c: acts.change(
            c, id, act, audiences=audiences or None, subject_issuer=subject_issuer, plain_jwt=plain_jwt
        )
    )
    audiences = (now.audience, *now.other_audiences)
    document = {
        "id": id,
        "audiences": audiences,
        "subject_issuer": now.names_subjects_of,
        "plain_jwt": now.plain_jwt,
    }
    takes = "also with a typ of JWT or none" if now.plain_jwt else "only as secevent+jwt"
    said = f"for {' or '.join(audiences)}, about people of {now.names_subjects_of}"
    out.done(f"transmitter {id}: its tokens are taken {takes}, {said}", document)


@command(transmitters)
@click.argument("id")
def running(at: Installation, out: Output, id: str) -> None:
    """Record that a stream is enabled again.

    Many transmitters do not report a change you make at the provider yourself. The record counts until the transmitter
    reports a later pause or end of the stream.
    """
    act = at.act()
    at.write(lambda c: acts.says_running(c, id, act))
    out.done(f"the stream of transmitter {id} is known as enabled", {"id": id, "stream_status": "enabled"})


@command(transmitters)
@click.argument("id")
@YES
def remove(at: Installation, out: Output, id: str, yes: bool) -> None:
    """Accept no more events from a transmitter. They are answered as those of an unknown one from then on.

    Signals received so far stay, and so do the links of its people. Its id cannot be used again.
    """
    confirm(f"Take no more events of transmitter {id}?", yes=yes)
    act = at.act()
    at.write(lambda c: acts.remove(c, id, act))
    said = f"transmitter {id} is unknown from now on; what it has signalled stays, and so do links of its people"
    out.done(said, {"id": id, "removed_at": act.now})


@command(transmitters, "list")
def list_transmitters(at: Installation, out: Output) -> None:
    """List the transmitters, including removed ones."""
    token = ("issuer", "audience", "other_audiences", "jwks_url", "subject_issuer", "plain_jwt")
    columns = ("id", "tenant_id", "connection_id", *token, "stream_status", "removed_at")
    out.rows(at.read(operator_queries.all_transmitters), columns, empty="None yet: `aswhom transmitters add --help`")
