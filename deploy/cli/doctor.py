"""`doctor`: what is wrong with an installation, and how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import click

from deploy.checkup import addresses, broker, clock, egress, ledger, lines, machine, providers, secrets, web, work
from deploy.checkup.finding import Finding, State, Subject, wrong
from deploy.cli.command import PROBLEM, invocation
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.errors import AswhomError

Check = Callable[[Installation], Iterator[Finding]]

#: Each with the subject that is wrong if the check cannot be carried out.
_FIRST: Sequence[tuple[Subject, Check]] = (
    (Subject.SETTINGS, machine.settings),
    (Subject.VERSIONS, machine.versions),
    (Subject.KEYS, machine.keys),
    (Subject.WORKFLOWS, machine.workflows),
    (Subject.DISK, machine.disk),
    (Subject.LEDGER, ledger.ledger),
    (Subject.BROKER, broker.broker),
    (Subject.TLS, lines.to_redis),
    (Subject.WEB, web.web),
)
#: Checks that need a ledger.
_THEN: Sequence[tuple[Subject, Check]] = (
    (Subject.TLS, lines.to_ledger),
    (Subject.HELD, work.held),
    (Subject.SEALED, secrets.sealed),
    (Subject.SIGNING_KEY, secrets.signing_key),
    (Subject.CLOCK, clock.clock),
    (Subject.HOUSEKEEPING, work.heartbeats),
    (Subject.SCHEDULES, work.schedules),
    (Subject.JOBS, work.stuck),
    (Subject.WORKFLOWS, work.missing_workflows),
    (Subject.CONFIGURATIONS, work.configurations),
    (Subject.CONNECTIONS, providers.connections),
    (Subject.EGRESS, egress.left_out),
    (Subject.ADDRESSES, addresses.addresses),
    (Subject.WEBHOOK_SECRETS, providers.webhook_secrets),
    (Subject.STOPPED, work.stopped),
    (Subject.ACCOUNTS, work.accounts),
    (Subject.SCOPES, work.scopes),
    (Subject.REVOCATIONS, work.revocations),
    (Subject.STREAMS, work.streams),
)
#: Checks that contact providers.
_ONLINE: Sequence[tuple[Subject, Check]] = (
    (Subject.REACHABILITY, providers.reachable),
    (Subject.SIGN_IN, egress.sign_in),
)


@click.command()
@click.option("--offline", is_flag=True, help="Do not contact providers.")
@invocation
def doctor(at: Installation, out: Output, offline: bool) -> int | None:
    """Report what is wrong and how to fix it. Exits with 1 if anything is wrong."""
    findings, stopped = _run(_FIRST, at)
    if Subject.LEDGER not in stopped:
        more, _ = _run(_THEN if offline else (*_THEN, *_ONLINE), at)
        findings += more
    healthy = all(finding.state is not State.WRONG for finding in findings)
    rows = [finding._asdict() for finding in findings]
    if out.as_json:
        out.document({"healthy": healthy, "findings": rows})
    else:
        out.table(rows, ("what", "state", "says"))
    return None if healthy else PROBLEM


def _run(checks: Iterable[tuple[Subject, Check]], at: Installation) -> tuple[list[Finding], set[Subject]]:
    """Return the findings, and the subjects of the checks that could not be carried out."""
    findings: list[Finding] = []
    stopped = set()
    for subject, check in checks:
        try:
            findings += list(check(at))
        except AswhomError as error:
            findings.append(wrong(subject, str(error)))
            stopped.add(subject)
    return findings, stopped
