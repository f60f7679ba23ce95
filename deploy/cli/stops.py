"""The `stop` and `open` commands of tenants, users, provider connections and agents."""

from __future__ import annotations

from collections.abc import Callable

import click

from deploy.cli.command import YES, command, confirm
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.accounts.stops import set_stopped
from identity.model import Scope

Find = Callable[[Installation, str], tuple[Scope, str | None]]  # returns the scope and its tenant; raises BadInput


def stop_and_open(
    group: click.Group, find: Find, *, what: str, then: Callable[[Installation, Output, str], None] | None = None
) -> None:
    """Add both commands to *group*. *then* notes what an operator should know about a scope that was reopened."""

    @command(group, "stop")
    @click.argument("id")
    @YES
    def stop(at: Installation, out: Output, id: str, yes: bool) -> None:
        scope, tenant = find(at, id)
        confirm(f"Stop {scope}? Jobs that reach a step under it meanwhile are cancelled.", yes=yes)
        _set(at, out, scope, tenant, stopped=True)

    stop.help = (
        f"Let no step open under this {what} until it is reopened. Jobs that reach a step meanwhile are cancelled "
        "and can be replayed. Nothing is revoked."
    )

    @command(group, "open")
    @click.argument("id")
    def open_again(at: Installation, out: Output, id: str) -> None:
        scope, tenant = find(at, id)
        _set(at, out, scope, tenant, stopped=False)
        if then is not None:
            then(at, out, id)

    open_again.help = f"Reopen this {what}. Whatever was revoked stays revoked."


def _set(at: Installation, out: Output, scope: Scope, tenant: str | None, *, stopped: bool) -> None:
    act = at.act()
    changed = at.write(lambda c: set_stopped(c, scope, act, stopped=stopped, tenant=tenant), ahead=True)
    state = "stopped" if stopped else "open"
    out.done(
        f"{scope} is {state}" if changed else f"{scope} was {state} already",
        {"scope": {"kind": str(scope.kind), "key": scope.key}, "stopped": stopped, "changed": changed},
    )
