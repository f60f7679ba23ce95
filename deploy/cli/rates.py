"""The `limit` commands of tenants, agents and API keys."""

from __future__ import annotations

from collections.abc import Callable

import click
from sqlalchemy import Connection

from deploy.cli.command import command
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.audit import Act

Limit = Callable[[Connection, str, int | None, Act], None]  # takes the id and its rate; raises BadInput


def limit_command(group: click.Group, limit: Limit, *, column: str, help: str, default: str) -> None:
    """Add `limit ID RATE` and `limit ID --default` to *group*. *default* says what holds without a rate."""

    @command(group, "limit")
    @click.argument("id")
    @click.argument("rate", required=False, type=click.IntRange(1, 1_000_000))
    @click.option("--default", "by_default", is_flag=True, help=f"Take the rate back: {default}.")
    def limit_it(at: Installation, out: Output, id: str, rate: int | None, by_default: bool) -> None:
        if (rate is None) is not by_default:
            raise click.UsageError("Give either a RATE a minute or --default.")
        act = at.act()
        at.write(lambda c: limit(c, id, rate, act))
        said = f"{id} is limited to {rate} a minute" if rate else f"{id} has no rate of its own: {default}"
        out.done(said, {"id": id, column: rate})

    limit_it.help = help
