"""`transmitters`: who may send Security Event Tokens, and whom their subjects are."""

from __future__ import annotations

import click

from deploy.cli.command import YES, command, confirm
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.errors import BadInput
from identity.transmitters import Transmitter
from pipeline.desk import transmitters as acts
from pipeline.ledger import operator_queries


@click.group()
def transmitters() -> None:
    """Who may tell us of revocations by Security Event Tokens (RFC 8935)."""


@command(transmitters)
@click.argument("id")
@click.option("--issuer", required=True, help="Its iss, to the letter.")
@click.option(
    "--audience",
    "audiences",
    required=True,
    multiple=True,
    help="What its aud must be or hold: us, as it calls us. Say it again for each, if it calls us by several.",
)
@click.option("--jwks-url", required=True, help="Where its public keys are.")
@click.option("--tenant", help="Whose people it tells of: they are linked with `aswhom aliases add --provider ID`.")
@click.option("--connection", help="The id of the provider connection whose accounts its subjects are.")
@click.option("--subject-issuer", help="The iss of its subjects, if it tells of another issuer's people than its own.")
@click.option("--plain-jwt", is_flag=True, help="Its tokens have no typ, or JWT: take them without secevent+jwt.")
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

    An identity provider is a tenant's; what it revokes ends everything that the user granted. Google is a provider
    connection's; what it revokes ends the account there.
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
@click.option("--audience", "audiences", multiple=True, help="What its aud must be or hold; say it again for each.")
@click.option("--subject-issuer", help="The iss of its subjects. Empty: its own.")
@click.option("--plain-jwt/--secevent-jwt", default=None, help="Whether its tokens are taken without secevent+jwt.")
def correct(
    at: Installation,
    out: Output,
    id: str,
    audiences: tuple[str, ...],
    subject_issuer: str | None,
    plain_jwt: bool | None,
) -> None:
    """Correct what a transmitter's tokens are to look like, at once; what is not named stays.

    Its id stays, and with it its address and the links of its people. What --audience names takes the place of those
    it has.
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
    takes = "with a typ of JWT or none, too" if now.plain_jwt else "as secevent+jwt alone"
    said = f"for {' or '.join(audiences)}, about people of {now.names_subjects_of}"
    out.done(f"transmitter {id}: its tokens are taken {takes}, {said}", document)


@command(transmitters)
@click.argument("id")
def running(at: Installation, out: Output, id: str) -> None:
    """Say that its stream is enabled again: of what you changed at the provider yourself, many tell nobody.

    It counts until the transmitter says of a later moment that it is paused or disabled.
    """
    act = at.act()
    at.write(lambda c: acts.says_running(c, id, act))
    out.done(f"the stream of transmitter {id} is known as enabled", {"id": id, "stream_status": "enabled"})


@command(transmitters)
@click.argument("id")
@YES
def remove(at: Installation, out: Output, id: str, yes: bool) -> None:
    """Take no more events of a transmitter: they are answered as those of an unknown one from then on.

    What it has signalled stays, and so do links of its people; its id stays taken.
    """
    confirm(f"Take no more events of transmitter {id}?", yes=yes)
    act = at.act()
    at.write(lambda c: acts.remove(c, id, act))
    said = f"transmitter {id} is unknown from now on; what it has signalled stays, and so do links of its people"
    out.done(said, {"id": id, "removed_at": act.now})


@command(transmitters, "list")
def list_transmitters(at: Installation, out: Output) -> None:
    """The transmitters, removed ones too."""
    token = ("issuer", "audience", "other_audiences", "jwks_url", "subject_issuer", "plain_jwt")
    columns = ("id", "tenant_id", "connection_id", *token, "stream_status", "removed_at")
    out.rows(at.read(operator_queries.all_transmitters), columns, empty="None yet: `aswhom transmitters add --help`")
