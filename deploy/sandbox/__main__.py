"""One sandbox process: `python -m deploy.sandbox github --world FILE --log FILE`."""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Flask

from deploy.sandbox.journal import Journal
from deploy.sandbox.server import Server

SERVICES = ("auth", "github", "linear", "slack", "salesforce", "stripe", "zendesk", "invoices")


def clock() -> datetime:
    return datetime.now(UTC)


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m deploy.sandbox", description=__doc__)
    arguments.add_argument("service", choices=SERVICES)
    arguments.add_argument("--world", type=Path, required=True, help="the JSON file make_world's answer was written to")
    arguments.add_argument("--log", type=Path, required=True, help="append what arrives here, as JSON lines")
    arguments.add_argument("--port", type=int, help="listen here rather than where the world says")
    chosen = arguments.parse_args()

    world = json.loads(chosen.world.read_text(encoding="utf-8"))
    port = chosen.port if chosen.port is not None else urlsplit(world[chosen.service]["url"]).port
    journal = Journal(chosen.service, chosen.log, clock=clock)
    server = Server(port, _app(chosen.service, world, journal))

    server.serve_until_terminated(f"{chosen.service} listens on http://127.0.0.1:{server.server_port}")


def _app(service: str, world: dict[str, Any], journal: Journal) -> Flask:
    """Import and create only the one service, which halves the start-up time."""
    match service:
        case "auth":
            from deploy.sandbox.auth.app import create_auth as create
        case "github":
            from deploy.sandbox.github.app import create_github as create
        case "linear":
            from deploy.sandbox.linear.app import create_linear as create
        case "slack":
            from deploy.sandbox.slack.app import create_slack as create
        case "salesforce":
            from deploy.sandbox.salesforce.app import create_salesforce as create
        case "stripe":
            from deploy.sandbox.stripe.app import create_stripe as create
        case "invoices":
            from deploy.sandbox.invoices.app import create_invoices as create
        case _:
            from deploy.sandbox.zendesk.app import create_zendesk as create
    return create(world, journal=journal, clock=clock)


if __name__ == "__main__":
    main()
