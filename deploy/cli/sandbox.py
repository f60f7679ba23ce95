"""`sandbox`: a GitHub to try an installation with, and a provider that misbehaves in thirty ways seen in real ones."""

from __future__ import annotations

import json
from pathlib import Path

import click

from deploy.cli.command import secret_option
from deploy.cli.output import Output
from identity.secret import Secret


@click.group()
def sandbox() -> None:
    """Stand-ins for providers, on this machine alone. They need no installation."""


@sandbox.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_cases(as_json: bool) -> None:
    """List the thirty cases, each one way in which real systems lost grants."""
    from deploy.sandbox.provider.cases import CASES

    rows = [
        {"case": case.number, "name": case.name, "says": case.says, "seen": case.seen}
        for case in sorted(CASES.values(), key=lambda case: case.number)
    ]
    Output(as_json=as_json).rows(rows, ("case", "name", "says"), empty="")


@sandbox.command()
@click.option("--case", type=click.IntRange(1, 30), required=True, help="A number from `aswhom sandbox list`.")
@click.option("--port", type=click.IntRange(0, 65535), default=8710, show_default=True, help="0: any free port.")
@click.option("--client-id", default="client", show_default=True)
@secret_option("--client-secret-file", help="The client's secret.  [default: any is accepted]")
@click.option("--user", default="anna", show_default=True, help="The user who signs in there.")
@click.option(
    "--rotates/--no-rotates", default=None, help="Whether a refresh token works only once.  [default: the case's]"
)
@click.option(
    "--grace",
    type=click.FloatRange(0, 86_400),
    help="Seconds within which it may be presented again.  [default: the case's]",
)
@click.option(
    "--lifetime", type=click.IntRange(1), default=3600, show_default=True, help="Lifetime of access tokens in seconds."
)
@click.option("--seconds", type=click.FloatRange(0, 120), default=15, show_default=True, help="Delay of slow answers.")
@click.option("--hook", metavar="URL", help="URL to which cases 23 and 24 send their signals, as Slack would.")
@secret_option("--signing-secret-file", help="The secret that signs these signals.")
@click.option("--log", type=click.Path(path_type=Path, dir_okay=False), help="Append incoming requests as JSON lines.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def provider(
    case: int,
    port: int,
    client_id: str,
    client_secret_file: Secret | None,
    user: str,
    rotates: bool | None,
    grace: float | None,
    lifetime: int,
    seconds: float,
    hook: str | None,
    signing_secret_file: Secret | None,
    log: Path | None,
    as_json: bool,
) -> None:
    """Run the provider of one case on 127.0.0.1 until Ctrl-C.

    It serves OAuth 2 endpoints (/authorize, /token, /revoke, metadata), an API that takes the tokens (/user, /userinfo,
    /say), installations of a GitHub App, and /_sandbox/presentations: every credential presented, and the outcome. `PUT
    /_sandbox/case` restarts a case, `POST /_sandbox/clock` advances time.
    """
    from datetime import UTC, datetime

    from deploy.sandbox.journal import Journal
    from deploy.sandbox.provider.cases import CASES
    from deploy.sandbox.provider.stage import Options, Stage
    from deploy.sandbox.server import Server

    def clock() -> datetime:
        return datetime.now(UTC)

    options = Options(
        client_id=client_id,
        client_secret=client_secret_file.reveal() if client_secret_file else None,
        user=user,
        rotates=rotates,
        grace=grace,
        lifetime=lifetime,
        seconds=seconds,
        hook=hook,
        signing_secret=signing_secret_file.reveal() if signing_secret_file else None,
    )
    try:
        journal = Journal("provider", log, clock=clock)
    except OSError as error:
        raise click.ClickException(f"{log} cannot be written: {error.strerror}. Choose another with --log") from error
    stage = Stage(case, options, journal=journal, clock=clock)
    try:
        server = Server(port, stage, clock=stage.clock)
    except OSError as error:
        why = f"port {port} cannot be listened on: {error.strerror}. Choose another with --port"
        raise click.ClickException(why) from error
    url, chosen = f"http://127.0.0.1:{server.server_port}", CASES[case]
    facts = {
        "case": case,
        "name": chosen.name,
        "says": chosen.says,
        "authorize_url": f"{url}/authorize",
        "token_url": f"{url}/token",
        "api_url": url,
        "client_id": client_id,
        "presentations": f"{url}/_sandbox/presentations",
    }
    lines = [f"Case {case}, {chosen.name}: {chosen.says}.", *(f"{name:14} {facts[name]}" for name in list(facts)[3:])]
    server.serve_until_terminated(json.dumps(facts) if as_json else "\n".join(lines))
