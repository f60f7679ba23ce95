"""`doctor`: what is wrong with an installation, and how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import click

from deploy.checkup import addresses, broker, clock, egress, ledger, lines, machine, providers, secrets, web, work
from deploy.checkup.finding import Finding, State, wrong
from deploy.cli.command import PROBLEM, invocation
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.errors import AswhomError

Look = Callable[[Installation], Iterator[Finding]]

_FIRST: Mapping[str, Look] = {
    "settings": machine.settings,
    "versions": machine.versions,
    "keys": machine.keys,
    "workflows": machine.workflows,
    "disk": machine.disk,
    "ledger": ledger.ledger,
    "broker": broker.broker,
    "lines": lines.to_redis,
    "web": web.web,
}
#: Checks that need a ledger.
_THEN: Mapping[str, Look] = {
    "tls": lines.to_ledger,
    "held": work.held,
    "sealed": secrets.sealed,
    "signing key": secrets.signing_key,
    "clock": clock.clock,
    "housekeeping": work.heartbeats,
    "schedules": work.schedules,
    "jobs": work.stuck,
    "workflows": work.missing_workflows,
    "configurations": work.configurations,
    "connections": providers.connections,
    "egress": egress.left_out,
    "addresses": addresses.addresses,
    "webhook secrets": providers.webhook_secrets,
    "stopped": work.stopped,
    "accounts": work.accounts,
    "scopes": work.scopes,
    "revocations": work.revocations,
    "streams": work.streams,
}


@click.command()
@click.option("--offline", is_flag=True, help="Do not contact providers.")
@invocation
def doctor(at: Installation, out: Output, offline: bool) -> int | None:
    """Report what is wrong and how to fix it. Exits with 1 if anything is wrong."""
    findings = [finding for name, look in _FIRST.items() for finding in _look(name, look, at)]
    if any(finding[:2] == ("ledger", State.OK) for finding in findings):
        then = _THEN if offline else {**_THEN, "reachability": providers.reachable, "sign-in": egress.sign_in}
        findings += [finding for name, look in then.items() for finding in _look(name, look, at)]
    healthy = all(finding.state is not State.WRONG for finding in findings)
    rows = [finding._asdict() for finding in findings]
    if out.as_json:
        out.document({"healthy": healthy, "findings": rows})
    else:
        out.table(rows, ("what", "state", "says"))
    return None if healthy else PROBLEM


def _look(name: str, look: Look, at: Installation) -> list[Finding]:
    try:
        return list(look(at))
    except AswhomError as error:
        return [wrong(name, str(error))]
