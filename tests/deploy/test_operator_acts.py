"""Every act of an operator leaves a row in the audit: each command is run, and its row is found."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import insert, select, update

from deploy.cli import main
from deploy.cli.output import Output
from deploy.installation import Installation
from deploy.settings import load
from identity.accounts.states import park
from identity.audit.tables import audit
from identity.model import ReconnectCause
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import WithdrawalState
from pipeline.tables import attempts
from tests.console.console_app import ConsoleApp
from tests.deploy.commands import every_command
from tests.deploy.conftest import Cli
from tests.identity.keys import pem
from tests.identity.providers import pretend_provider
from tests.identity.published_providers import server
from tests.ledger.approval_case import SHOWN, ApprovalCase

#: The commands that leave none, by the reason: a new command is in one of these, or it is run below.
SILENT = {
    "it shows": """
        aliases list, installations list, tenants list, users list, transmitters list, agents list, workflows list,
        connections list, connections providers, connections show, connect returns, accounts list, accounts scopes,
        accounts show, api-keys list, schedules list, schedules next, capability audiences list, capability list,
        capability keys list, approvals list, approvals show, jobs failures, jobs list, jobs show, tail,
        deliveries explain, deliveries list, deliveries show, revocations jobs, revocations list, revocations show,
        revocations verify, audit checkpoint, audit export, audit search, audit show, audit verify, console roles,
        console sessions,
        policy check, policy diff, policy explain, policy history, policy risk, policy schema, policy show,
        policy simulate, keys list, keys public, doctor, completion, hold show, sandbox list""",
    "it asks a provider, and nothing follows from the answer": "accounts test",
    "it sends a delivery, which is recorded as any other": "trigger",
    "it makes the ledger, or its tables": "init, db upgrade",
    "it copies the ledger, looks it through, or waits for it": "db backup, db check, db wait",
    "it leaves a row in each of two ledgers (test_ledger_import.py)": "db import-sqlite",
    "it runs processes": "up, demo, sandbox github, sandbox provider",
    "it writes files of its own": "new workflow",
    "it changes key files, beside the ledger": "keys add, keys retire",
    "it seals the same secrets anew": "keys rewrap",
    "it forgets what is over, as housekeeping does": "db prune",
}
#: Not operators alone leave these; who it was is told in their detail.
IN_DETAIL = ("revocation.effective", "approval.answered")
POLICY = 'format = 1\n[[rule]]\nname = "x"\nwhen = { action = "github.Say" }\ndeny = "no"\n'


class Acts:
    """Runs commands on one installation, which stays open, and holds each against the rows that it left."""

    def __init__(self, at: Installation) -> None:
        self.at = at
        self.done: set[str] = set()
        self._commands = dict(every_command())

    def __call__(self, *words: str, kind: str, input: str | None = None) -> Any:
        """The answer to a command that leaves a row of that kind, which names the operator."""
        before = self._rows()
        answer = self.run(*words, input=input)
        left = {row: told for row, told in self._rows().items() if row not in before}
        ours = [told for told in left.values() if told[0] == kind]
        assert ours, (words, sorted(told[0] for told in left.values()))
        names = [
            "cli:" in str(detail) if kind in IN_DETAIL else "by cli:" in (reason or "") for _, reason, detail in ours
        ]
        assert any(names), (words, ours)
        return answer

    def run(self, *words: str, input: str | None = None, code: int = 0) -> Any:
        """The document that a command prints: as it runs on the command line, but that the settings are read once."""
        name = next(name for name in self._commands if list(words[: len(name.split())]) == name.split())
        command = self._commands[name]
        with CliRunner().isolation(input) as (printed, *_):
            # As it is under `main`: a command keeps the help option that it was first seen with.
            given = command.make_context(name, list(words[len(name.split()) :]), **main.context_settings).params
            options = {option: value for option, value in given.items() if option not in ("data_dir", "as_json")}
            exit_code = vars(command.callback)["__wrapped__"](self.at, Output(as_json=True), **options)
            document = printed.getvalue()
        assert (exit_code or 0) == code, (words, document)
        self.done.add(name)
        return json.loads(document)

    def _rows(self) -> dict[str, tuple[Any, ...]]:
        columns = (audit.c.id, audit.c.kind, audit.c.reason, audit.c.detail)
        return {row.id: tuple(row)[1:] for row in self.at.read(lambda c: c.execute(select(*columns)).all())}


def test_every_act_leaves_a_row_that_names_the_operator(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASWHOM_ALLOW_HOSTS", "127.0.0.1")
    monkeypatch.setenv("ASWHOM_WORKFLOWS", "tests.console.console_app")
    with Installation(load(data_dir=cli.data_dir)) as at:
        act = Acts(at)
        with pretend_provider() as provider:
            _of_who_there_is(act)
            _of_connections(act, provider.url, tmp_path)
            _of_accounts(act, tmp_path)
        console = ConsoleApp(at.ledger)  # acme and globex, with something of everything
        _of_work(act, console)
        _of_approvals(act, console)
        console.close()
        _of_tenants_rules(act)
        _of_revocations(act)
        _of_keys(act)
    silent = {name.strip() for names in SILENT.values() for name in names.split(",")}
    assert not act.done & silent
    assert act.done | silent == {name for name, _ in every_command()}


def _of_who_there_is(act: Acts) -> None:
    act("hold", "set", "--why", "a drill", kind="hold.set")
    act("hold", "release", "--yes", kind="hold.released")
    with closing(sqlite3.connect(act.at.place)) as opened:
        opened.execute("pragma wal_checkpoint(truncate)")  # as the end of each command does, beside which no log lies
    act("db", "restored", "--why", "a drill", "--yes", kind="ledger.restored")
    act("hold", "release", "--yes", kind="hold.released")
    act("tenants", "add", "mill", kind="tenant.added")
    act("tenants", "stop", "mill", "--yes", kind="scope.stopped")
    act("tenants", "open", "mill", kind="scope.opened")
    alias = ("--tenant", "mill", "--user", "ada", "--provider", "github", "--external-id", "7")
    act("aliases", "add", *alias, kind="alias.added")
    act("users", "stop", "mill.ada", "--yes", kind="scope.stopped")
    act("users", "open", "mill.ada", kind="scope.opened")
    gone = ("--tenant", "mill", "--provider", "github", "--external-id", "7", "--yes")
    act("aliases", "remove", *gone, kind="alias.removed")
    returns = act("connect", "add-return", "https://app.example/", kind="return_target.added")
    act("connect", "remove-return", returns["id"], "--yes", kind="return_target.removed")
    transmitter = ("--issuer", "https://i.example", "--audience", "us", "--jwks-url", "https://i.example/keys")
    act("transmitters", "add", "okta", *transmitter, "--tenant", "mill", kind="transmitter.added")
    act("transmitters", "set", "okta", "--plain-jwt", kind="transmitter.changed")
    act("transmitters", "running", "okta", kind="transmitter.running")
    act("transmitters", "remove", "okta", "--yes", kind="transmitter.removed")


def _of_connections(act: Acts, url: str, tmp_path: Path) -> None:
    client = ("--client-id", "Iv1", "--client-secret-file", "-", "--api-url", url, "--token-url", f"{url}/token")
    act("connections", "add", "github", *client, input="s3cret", kind="connection.added")
    act("connections", "stop", "github", "--yes", kind="scope.stopped")
    act("connections", "open", "github", kind="scope.opened")
    act("installations", "add", "github", "41", "mill", kind="installation.added")
    act("installations", "remove", "github", "41", "--yes", kind="installation.removed")
    act("installations", "add", "github", "42", "mill", kind="installation.added")
    sender = ("standard", "--id", "billing", "--tenant", "mill", "--webhook-secret-file", "-")
    act("connections", "add-sender", *sender, input="whsec_" + "a2tr" * 8, kind="connection.added")
    made = ("--generate", str(tmp_path / "made"), "--yes")
    act("connections", "rotate-webhook-secret", "billing", *made, kind="connection.secret_rotated")
    act("connections", "rotate-secret", "github", "--file", "-", input="n3w", kind="connection.secret_rotated")
    key = ("--name", "private_key", "--file", "-")
    added = act("connections", "add-secret", "github", *key, input=pem(), kind="connection.secret_added")
    act("connections", "retire-secret", added["id"], "--yes", kind="connection.secret_retired")
    with server() as issuer:
        named = {"issuer": issuer.url, "authorization_endpoint": f"{issuer.url}/auth"}
        issuer.say(200, {**named, "token_endpoint": f"{issuer.url}/token"})
        oidc = ("--client-id", "c", "--client-secret-file", "-", "--issuer", issuer.url)
        act("connections", "add", "oidc", *oidc, input="s3cret", kind="connection.added")
        issuer.say(200, {**named, "token_endpoint": f"{issuer.url}/token/v2"})
        act("connections", "discover", "oidc", kind="connection.discovered")
    act("connections", "name-people", "oidc", "idp", kind="connection.people_named")
    act("connections", "set", "github", "--scopes", "repo", kind="connection.changed")
    spare = act("connections", "add", "google", "--id", "spare", "--client-id", "c", kind="connection.added")
    act("connections", "remove", spare["id"], "--yes", kind="connection.removed")


def _of_accounts(act: Acts, tmp_path: Path) -> None:
    service = ("--tenant", "mill", "--connection", "github")
    refresh = tmp_path / "refresh"
    refresh.write_text("r3fresh")
    act.run("connections", "rotate-secret", "github", "--name", "private_key", "--file", "-", input=pem())
    act("accounts", "add-installation", *service, "--installation", "42", kind="account.connected")
    act("accounts", "add-static", *service, "--token-file", "-", input="t0ken", kind="account.connected")
    rotating = ("--token-file", "-", "--refresh-token-file", str(refresh))
    act("accounts", "add-rotating", *service, *rotating, input="t0ken", kind="account.connected")
    google = act("connections", "add", "google", "--private-key-file", "-", "--client-id", "r@p.example", input=pem(),
                 kind="connection.added")  # fmt: skip
    jwt = ("--tenant", "mill", "--connection", google["id"], "--scopes", "drive")
    act("accounts", "add-jwt-bearer", *jwt, kind="account.connected")
    made = act("accounts", "add-client-credentials", *service, "--scopes", "a,b", kind="account.connected")
    act("accounts", "refresh", made["id"], kind="account.refresh_forced")
    act("accounts", "narrow", made["id"], "--scopes", "a", "--yes", kind="account.narrowed")
    link = ("--tenant", "mill", "--user", "ada", "--connection", "oidc", "--scopes", "openid")
    act("connect", "link", *link, kind="connect.invited")


def _of_work(act: Acts, console: ConsoleApp) -> None:
    act.run("connections", "rotate-secret", "gh", "--file", "-", input="s3cret")
    cause, now = ReconnectCause.PERSON, act.at.now()
    act.at.write(lambda c: park(c, "acc-acme.ada", "the provider wants somebody", cause=cause, now=now))
    act("accounts", "retry", "acc-acme.ada", kind="account.retried")
    act("accounts", "reconnect", "acc-acme.ada", "--scopes", "a", kind="connect.invited")
    console.pause()
    act("connections", "resume", "gh", kind="connection.resumed")
    act("jobs", "cancel", console.waiting(), "--yes", kind="job.cancelled")
    act("jobs", "replay", console.dead("it fell over"), "--yes", kind="job.replayed")
    asks = console.in_doubt()
    (call,) = console.rows(select(attempts.c.id).where(attempts.c.job_id == asks))
    act("jobs", "resolve", asks, "--call", call.id, "--no-effect", "--yes", kind="attempt.resolved")
    lost = console.dead("it fell over", body=b'{"author": "1001", "text": "x", "installation": {"id": 77}}')
    act("deliveries", "replay", console.house.row(lost).delivery_id, "--yes", kind="delivery.replayed")
    act("agents", "stop", "tester", "--yes", kind="scope.stopped")
    act("agents", "open", "tester", kind="scope.opened")


def _of_approvals(act: Acts, console: ConsoleApp) -> None:
    for verb in ("approve", "deny"):
        case = ApprovalCase(console.house)
        case.ask(shown=SHOWN)
        act("approvals", "link", case.row.id, "--for", "acme.bob", kind="approval.link_made")
        act("approvals", verb, case.row.id, "--as", "acme.bob", "--yes", kind="approval.answered")


def _of_tenants_rules(act: Acts) -> None:
    act("workflows", "enable", "tidy", "--tenant", "acme", kind="workflow.enabled")
    act("workflows", "start", "tidy", "--tenant", "acme", kind="job.started")
    act("workflows", "disable", "tidy", "--tenant", "acme", kind="workflow.disabled")
    schedule = ("morning", "--tenant", "acme", "--workflow", "tidy", "--cron", "0 9 * * *")
    id = act("schedules", "add", *schedule, kind="schedule.added")["id"]
    for verb, done in (("pause", "paused"), ("resume", "resumed")):
        act("schedules", verb, id, kind=f"schedule.{done}")
    act("schedules", "remove", id, "--yes", kind="schedule.removed")
    act("policy", "apply", "acme", "-", "--yes", input=POLICY, kind="policy.applied")
    agent = ("--tenant", "acme", "--agent", "bot")
    made = act("api-keys", "add", *agent, kind="api_key.created")
    issuer = (
        "--issuer",
        "https://i.example",
        "--audience",
        "us",
        "--subject",
        "w",
        "--jwks-url",
        "https://i.example/k",
    )
    act("api-keys", "trust", *agent, *issuer, kind="workload.trusted")
    for group, id, kind in (
        ("tenants", "acme", "tenant"),
        ("agents", "acme.bot", "agent"),
        ("api-keys", made["id"], "api_key"),
    ):
        act(group, "limit", id, "100", kind=f"{kind}.limited")
    act("api-keys", "revoke", made["id"], "--yes", kind="api_key.revoked")
    act("console", "link", kind="console.link_made")
    role = act("console", "allow", "owner", "--value", "ada@acme.example", kind="console.allowed")
    act("console", "disallow", role["id"], "--yes", kind="console.disallowed")
    act("console", "sign-out", "--yes", kind="console.all_signed_out")


def _of_keys(act: Acts) -> None:
    act("capability", "audiences", "add", "bank", "--uri", "https://bank.example", kind="audience.added")
    act("capability", "audiences", "renew", "bank", "--yes", kind="audience.renewed")
    act("capability", "audiences", "remove", "bank", "--yes", kind="audience.removed")
    key = act("capability", "keys", "rotate", kind="capability_key.rotated")
    act("capability", "keys", "withdraw", key["kid"], "--yes", kind="capability_key.withdrawn")
    act("keys", "rotate-signing", "--yes", kind="signing_key.rotated")


def _of_revocations(act: Acts) -> None:
    """With what housekeeping does meanwhile: it carries revocations out, and one is stuck at its provider."""
    made = act("revoke", "account", "acc-acme.ada", "--yes", kind="revocation.effective")
    stuck = {
        "id": "w-1", "account_id": "acc-acme.ada", "origin": "grant", "credential": "static", "generation": 9,
        "consented": 1, "state": WithdrawalState.STUCK, "due_at": datetime.now(UTC), "created_at": datetime.now(UTC),
        "tries": 9, "revocation_id": made["id"],
    }  # fmt: skip
    act.at.write(lambda c: c.execute(insert(withdrawals), stuck))
    act("revocations", "retry", made["id"], kind="revocation.retried")
    left = {**stuck, "id": "connect.7", "origin": "connect", "revocation_id": None}
    act.at.write(lambda c: c.execute(insert(withdrawals), left))
    act("revocations", "retry", "connect.7", kind="connect.retried")
    act.at.write(lambda c: c.execute(update(withdrawals).values(state=WithdrawalState.STUCK)))
    act("revocations", "give-up", "connect.7", "--yes", kind="connect.given_up")
    ended = ("tenants", "delete", "globex", "--yes", "--timeout", "0")
    waits = act.run(*ended, code=1)
    assert act.at.runtime.revoker.advance(waits["revocation"])
    act(*ended, "--give-up", kind="tenant.deleted")
