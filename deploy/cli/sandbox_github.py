"""`sandbox github`: a stand-in for GitHub, to try a running installation without a GitHub App."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import click

from deploy.cli.sandbox import sandbox

_API, _OAUTH = 8701, 8702
_TENANT = "acme"
_SCOPES = "issues:read,issues:write,pull_requests:read,pull_requests:write"


@sandbox.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("sandbox"),
    show_default=True,
    help="Its secrets and logs. A second start there has the same secrets.",
)
@click.option("--web", default="http://127.0.0.1:8080", show_default=True, help="ASWHOM_BASE_URL of the installation.")
@click.option("--port", type=click.IntRange(1, 65535), default=_API, show_default=True, help="Its API.")
@click.option(
    "--oauth-port", type=click.IntRange(1, 65535), default=_OAUTH, show_default=True, help="Its consent pages."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def github(directory: Path, web: str, port: int, oauth_port: int, as_json: bool) -> None:
    """Run the sandbox's GitHub on 127.0.0.1 until Ctrl-C, and print how to connect an installation to it.

    It has a GitHub App, installed for three organizations, one of them acme with ada and grace, and sends signed
    webhooks to the installation. It keeps everything but its secrets in memory.
    """
    from datetime import UTC, datetime

    from deploy.sandbox.auth.app import create_auth
    from deploy.sandbox.github.app import create_github
    from deploy.sandbox.journal import Journal
    from deploy.sandbox.server import Server

    def clock() -> datetime:
        return datetime.now(UTC)

    try:
        world = _world(directory, web.rstrip("/"), port, oauth_port)
        servers = [
            Server(one, create(world, journal=Journal(name, directory / f"{name}.log", clock=clock), clock=clock))
            for name, one, create in (("auth", oauth_port, create_auth), ("github", port, create_github))
        ]
    except OSError as error:
        why = f"{error.filename or f'port {port} or {oauth_port}'} cannot be used: {error.strerror}"
        raise click.ClickException(f"{why}. Choose another with --directory, --port or --oauth-port") from error
    auth, api = servers
    threading.Thread(target=auth.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    told = _commands(directory, world)
    api.serve_until_terminated(json.dumps(told) if as_json else "\n".join(_lines(told)))
    auth.stop()


def _world(directory: Path, web: str, port: int, oauth_port: int) -> dict[str, Any]:
    """Return the world of this directory, made at the first start. Raise OSError."""
    from datetime import UTC, datetime

    from deploy.sandbox.__main__ import SERVICES
    from deploy.sandbox.world import make_world

    kept = directory / "world.json"
    hook, api, auth = f"{web}/webhooks/github/github", f"http://127.0.0.1:{port}", f"http://127.0.0.1:{oauth_port}"
    if kept.exists():
        world: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if (world["github"]["webhook_url"], world["github"]["url"], world["auth"]["url"]) != (hook, api, auth):
            raise click.ClickException(f"{directory} was made with other addresses. Choose another with --directory")
    else:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        hooks = dict.fromkeys(("github", "slack"), hook)
        callbacks = {"github": f"{web}/connect/callback/github", "linear": web}
        unused = dict.fromkeys(SERVICES, 1)
        ports = unused | {"github": port, "auth": oauth_port}
        world = make_world(ports=ports, hooks=hooks, callbacks=callbacks, now=datetime.now(UTC))
        _keep(kept, json.dumps(world))
    app = world["github"]
    _keep(directory / "client-id.txt", app["client_id"])
    _keep(directory / "client-secret.txt", app["client_secret"])
    _keep(directory / "webhook-secret.txt", app["webhook_secret"])
    _keep(directory / "app.pem", app["app_private_key_pem"])
    return world


def _keep(path: Path, text: str) -> None:
    """Write a private file whole, or leave it as it was: a world written in part would fail every later start."""
    beside = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)


def _commands(directory: Path, world: dict[str, Any]) -> dict[str, str]:
    app, auth = world["github"], world["auth"]["url"]
    (installation,) = [one for one in app["installations"] if one["account"] == _TENANT]
    allow = f"{app['url']},{auth}"
    connection = (
        f"aswhom connections add github --client-id {app['client_id']}"
        f" --client-secret-file {directory}/client-secret.txt --webhook-secret-file {directory}/webhook-secret.txt"
        f" --private-key-file {directory}/app.pem --scopes {_SCOPES}"
        f" --config app_id={app['app_id']} --api-url {app['url']}"
        f" --authorize-url {auth}/github/login/oauth/authorize --token-url {auth}/github/login/oauth/access_token"
    )
    return {
        "allow_hosts": allow,
        "connection": connection,
        "installation": f"aswhom installations add github {installation['id']} {_TENANT}",
        "repository": installation["repositories"][0],
        "pulls": f"{app['url']}/_sandbox/pulls",
    }


def _lines(told: dict[str, str]) -> list[str]:
    return [
        f"GitHub is pretended at {told['allow_hosts'].replace(',', ' (API) and ')} (consent). Ctrl-C stops it.",
        f"For `aswhom up` and for every command: export ASWHOM_ALLOW_HOSTS={told['allow_hosts']}",
        "Then, once:",
        f"  aswhom tenants add {_TENANT}",
        f"  {told['connection']}",
        f"  {told['installation']}",
        "Open a pull request as ada:",
        f'  curl --json \'{{"repo": "{told["repository"]}", "author": "ada"}}\' {told["pulls"]}',
        "The whole way: docs/howto/try-it-without-a-provider.md",
    ]
