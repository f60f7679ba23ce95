"""`policy`: checking, comparing, simulating and applying a tenant's policy file, and its history."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import click
from sqlalchemy import Connection

from deploy.cli.command import PROBLEM, YES, command, confirm
from deploy.cli.output import Output
from deploy.cli.policy import policy
from deploy.installation import Installation
from identity.errors import BadInput
from identity.policy.file import digest_of, read_policy, schema
from identity.policy.ledger import policy_history, policy_text
from identity.policy.rules import FACTS_ALONE, Policy
from pipeline.policy.change import put_in_force
from pipeline.policy.names import nobody_left, unknown_names, without_amount, without_capability, without_spare
from pipeline.policy.trial import PolicyTrial, compare, declared_cases, stored_cases, tool_cases
from pipeline.views import operator_queries

FILE = click.argument("file", metavar="FILE")
TENANT = click.argument("tenant")

T = TypeVar("T")

_DECLARED = "step(s) of workflows and tools of API keys"


@command(policy)
@TENANT
@FILE
def check(at: Installation, out: Output, tenant: str, file: str) -> int | None:
    """Check FILE ('-': stdin) as TENANT's policy: whether it is valid, and whether the names in it exist."""
    stated = read_policy(_text(file))
    unknown = _of(at, tenant, lambda c: unknown_names(c, at.workflows, tenant, stated))
    nobody = nobody_left(at.workflows, stated)
    nobody += _of(at, tenant, lambda c: without_capability(c, at.workflows, tenant, stated))
    amounts = without_amount(at.workflows, stated)
    quorums = _of(at, tenant, lambda c: without_spare(c, at.workflows, tenant, stated))
    rules, allowances = len(stated.rules), len(stated.allowances)
    for one in (*unknown, *nobody, *amounts, *quorums):
        out.sentence(one)
    document = {"tenant": tenant, "sha256": stated.digest, "rules": rules, "allow": allowances}
    document |= {"unknown": unknown, "nobody": nobody, "amounts": amounts, "quorums": quorums}
    if unknown:
        out.done(
            f"{file}: {len(unknown)} name(s) match nothing or too few people, so `aswhom policy apply` refuses it",
            document,
        )
        return PROBLEM
    out.done(f"{file}: {rules} rule(s) and {allowances} allowance(s) can be used", document)
    return None


@command(policy)
@TENANT
@FILE
@click.option("--over", type=click.IntRange(0), help="Refuse unless this version is in force.")
@YES
def apply(at: Installation, out: Output, tenant: str, file: str, over: int | None, yes: bool) -> None:
    """Put FILE ('-': stdin) into force. Once this returns, no step of TENANT opens under an older version."""
    text = _text(file)
    stated = read_policy(text)
    unknown = _of(at, tenant, lambda c: unknown_names(c, at.workflows, tenant, stated))
    if unknown:
        raise BadInput(
            "it contains names that do not exist, or too few people:" + "".join(f"\n  - {one}" for one in unknown)
        )
    _, _, before = _stored(at, tenant, None)
    trial = _declared(at, tenant, before, stated)
    confirm(f"{trial.changed} {_DECLARED} are decided otherwise (`aswhom policy diff`). Apply?", yes=yes)
    act = at.act()
    applied = at.write(lambda c: put_in_force(c, tenant, text, act, over=over))
    told = "is in force" if applied.changed else "was in force already"
    out.done(f"version {applied.version} of {tenant}'s policy {told}", {"tenant": tenant, **asdict(applied)})


@command(policy)
@TENANT
@click.option("--version", type=click.IntRange(1), help="An older version.  [default: the one in force]")
def show(at: Installation, out: Output, tenant: str, version: int | None) -> None:
    """Print TENANT's policy as it was written."""
    number, text = _of(at, tenant, lambda c: policy_text(c, tenant, version))
    if out.as_json:
        out.document({"tenant": tenant, "version": number, "sha256": digest_of(text), "document": text})
    else:
        out.sentence(text.rstrip() if number else f"{tenant} has no policy of its own: the actions' facts decide")


@command(policy)
@TENANT
def history(at: Installation, out: Output, tenant: str) -> None:
    """List the versions of TENANT's policy, newest first."""
    rows = _of(at, tenant, lambda c: [row._asdict() for row in policy_history(c, tenant)])
    empty = f"{tenant} has no policy of its own: the actions' facts decide"
    out.rows(rows, ("version", "created_at", "made_by", "sha256"), empty=empty)


@command(policy)
@TENANT
@FILE
@click.option(
    "--version",
    type=click.IntRange(0),
    help="Compare with this version; 0: no policy, only the actions' facts.  [default: the one in force]",
)
def diff(at: Installation, out: Output, tenant: str, file: str, version: int | None) -> None:
    """Show how FILE ('-': stdin) differs, line by line and for each declared step and each tool that a key executes."""
    text = _text(file)
    after = read_policy(text)
    number, old, before = _stored(at, tenant, version)
    lines = list(difflib.unified_diff(old.splitlines(), text.splitlines(), f"version {number}", file, lineterm=""))
    for line in lines:
        out.sentence(line)
    _tell(out, _declared(at, tenant, before, after), _DECLARED, {"lines": lines})


@command(policy)
@TENANT
@FILE
@click.option("--days", default=7, show_default=True, type=click.IntRange(1, 90), help="How many days to look back.")
def simulate(at: Installation, out: Output, tenant: str, file: str, days: int) -> None:
    """Show how recent and waiting steps would be decided under FILE ('-': stdin), compared with the policy in force."""
    after = read_policy(_text(file))
    _, _, before = _stored(at, tenant, None)
    since = at.now() - timedelta(days=days)
    trial = at.read(lambda c: compare(stored_cases(c, at.workflows, tenant, since=since), before, after))
    _tell(out, trial, f"step(s) of the last {days} day(s) or waiting now", {"since": since})


@command(policy, "schema")
def print_schema(at: Installation, out: Output) -> None:
    """Print the JSON Schema of a policy file, for editors."""
    out.document(schema())


def _declared(at: Installation, tenant: str, before: Policy, after: Policy) -> PolicyTrial:
    """Compare both policies on what may happen: each declared step of a workflow, each tool of an API key."""
    now = at.now()
    tools = at.read(lambda c: list(tool_cases(c, at.workflows, tenant, now=now)))
    return compare([*declared_cases(at.workflows.with_compensations), *tools], before, after)


def _text(file: str) -> str:
    """Return the file's text. Raise BadInput."""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not UTF-8 text") from error


def _stored(at: Installation, tenant: str, version: int | None) -> tuple[int, str, Policy]:
    """Return a stored version's number, text and policy. Raise BadInput."""
    number, text = _of(at, tenant, lambda c: policy_text(c, tenant, version))
    return number, text, read_policy(text, version=number) if number else FACTS_ALONE


def _tell(out: Output, trial: PolicyTrial, what: str, more: dict[str, object]) -> None:
    if out.as_json:
        out.document({**more, **asdict(trial)})
        return
    unread = f"; {trial.unreadable} that today's workflows do not know were left out" if trial.unreadable else ""
    out.sentence(f"{trial.changed} of {trial.asked} {what} would be decided otherwise{unread}")
    if trial.changes:
        rows = [asdict(one) for one in trial.changes]
        out.table(rows, ("workflow", "action", "steps", "before", "after", "example"))


def _of(at: Installation, tenant: str, read: Callable[[Connection], T]) -> T:
    """Return what *read* finds for an existing tenant. Raise BadInput if there is no such tenant."""

    def known(connection: Connection) -> T:
        operator_queries.tenant(connection, tenant)
        return read(connection)

    return at.read(known)
