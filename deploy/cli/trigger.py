"""`trigger`: sends a signed delivery to the running web process, as its sender would."""

from __future__ import annotations

import json
from typing import Any

import click
import httpx
from sqlalchemy import Connection

from deploy import fixtures
from deploy.cli.command import PROBLEM, invocation, json_file, pairs
from deploy.cli.output import Output
from deploy.fixtures.signing import signature
from deploy.installation import Installation
from identity.connections.registry import get_connection
from identity.connections.secrets import WEBHOOK_SECRET, live_secrets
from identity.errors import BadInput
from identity.model import ProviderConnection
from identity.secret import Secret
from pipeline.views import operator_queries

ANSWER_SECONDS = 10
#: The field of a body that names its installation, workspace or organization.
_WHERE = {"github": "installation.id", "slack": "team_id", "linear": "organizationId"}


@click.command()
@click.argument("source", type=click.Choice(["github", "slack", "linear", "standard"]))
@click.argument("event")
@click.option("--connection", "through", help="The provider connection.  [default: the only one of that source]")
@click.option("--installation", help="The installation it comes from.  [default: the connection's only one]")
@click.option(
    "--set", "changes", multiple=True, metavar="PATH=VALUE", help="Change a field of the body: repository.full_name=a/b"
)
@click.option("--body", callback=json_file, metavar="FILE", help="Your own body, as JSON. '-': stdin.")
@click.option("--url", help="The web process's URL.  [default: where `aswhom up` listens]")
@invocation
def trigger(
    at: Installation,
    out: Output,
    source: str,
    event: str,
    through: str | None,
    installation: str | None,
    changes: tuple[str, ...],
    body: Any,
    url: str | None,
) -> int | None:
    """Send EVENT of SOURCE (github pull_request.opened) to the running web process, signed as its sender would.

    It is a delivery like any other, and the work it starts is really done. The built-in bodies are small and made up: a
    job that calls the provider about a made-up pull request fails. Name an existing one with --set
    repository.full_name=acme/shop --set pull_request.number=7, or give your own body with --body.
    """
    changed = pairs(changes, option="--set")
    if body is not None and not isinstance(body, dict):
        raise BadInput("--body: a delivery is a JSON object")
    owner, secret, where = at.read(lambda c: _sender(at, c, source, through, installation, made_up=body is None))
    now = at.now()
    document = body if body is not None else fixtures.fixture(source, event, now=now)
    if where is not None and source in _WHERE:
        _place(document, source, where)
    for path, value in changed.items():
        fixtures.change(document, path, value)
    sent, content_type = fixtures.encoded(source, event, document)
    headers = {"Content-Type": content_type, **signature(source, event, sent, secret, now=now)}
    base = url or f"http://{at.settings.listen}"
    try:
        answer = httpx.post(
            f"{base.rstrip('/')}/webhooks/{source}/{owner.id}",
            content=sent,
            headers=headers,
            timeout=ANSWER_SECONDS,
            trust_env=False,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BadInput(
            f"the web at {base} cannot be reached ({type(error).__name__}): is `aswhom up` running?"
        ) from None
    said = _said(answer)
    sentence = f"{source} {event} to {owner.id}: {answer.status_code} {said.get('outcome', said.get('detail', ''))}"
    out.done(
        f"{sentence} {said.get('delivery', '')} {', '.join(said.get('jobs', []))}".rstrip(),
        {"status": answer.status_code, **said},
    )
    return None if answer.is_success else PROBLEM


def _sender(
    at: Installation, c: Connection, source: str, through: str | None, installation: str | None, *, made_up: bool
) -> tuple[ProviderConnection, Secret, str | None]:
    """Return the connection, its signing secret, and the installation that a made-up body should name."""
    if through is None:
        fitting = [row["id"] for row in operator_queries.all_connections(c) if row["provider"] == source]
        if len(fitting) != 1:
            raise BadInput(f"{len(fitting)} provider connections are of {source}: say which with --connection")
        (through,) = fitting
    operator_queries.provider_connection(c, through)
    owner = get_connection(c, through)
    if owner.provider != source:
        raise BadInput(f"{through} is of {owner.provider}, not of {source}")
    live = live_secrets(c, through, WEBHOOK_SECRET)
    if not live:
        raise BadInput(
            f"{through} has no webhook secret: "
            f"`aswhom connections add-secret {through} --name webhook_secret --file FILE`"
        )
    if not made_up:
        return owner, live[0].open(at.vault), None
    known = [row["external_id"] for row in operator_queries.all_installations(c) if row["connection_id"] == through]
    if installation is None and owner.tenant is None and source in _WHERE:
        if len(known) != 1:
            raise BadInput(f"{through} has {len(known)} installations: say which with --installation")
        (installation,) = known
    return owner, live[0].open(at.vault), installation


def _place(document: dict[str, Any], source: str, where: str) -> None:
    if source == "slack" and isinstance(document.get("team"), dict):
        fixtures.change(document, "team.id", json.dumps(where))
    elif source == "github" and "installation" in document:
        fixtures.change(document, "installation.id", where if where.isdecimal() else json.dumps(where))
    elif source != "github":
        fixtures.change(document, _WHERE[source], json.dumps(where))


def _said(answer: httpx.Response) -> dict[str, Any]:
    try:
        said = answer.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
