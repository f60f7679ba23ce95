"""The command line on a fresh installation: documents, exit codes, and errors that say what to do."""

from __future__ import annotations

import json
import sqlite3
import sys
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.cli import COMMANDS, SECTIONS, main
from deploy.cli.output import Output
from deploy.installation import Installation
from deploy.settings import load
from identity.connections.secrets import PRIVATE_KEY, WEBHOOK_SECRET, live_secrets
from identity.errors import Misconfigured
from identity.model import AccountKey, AccountState, Credential
from pipeline.desk.tenants import add_user
from tests.deploy.conftest import Cli
from tests.identity.keys import pem


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text("hunter2-hunter2\n")
    return str(path)


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "key.pem"
    path.write_text(pem("Ed25519"))
    return str(path)


@pytest.fixture
def acme(cli: Cli, secret: str, key: str) -> Cli:
    """With a tenant and a provider connection."""
    cli.json("tenants", "add", "acme", "--name", "Acme")
    made = cli.json(
        "connections", "add", "github", "--client-id", "Iv1", "--client-secret-file", secret, "--webhook-secret-file",
        secret, "--private-key-file", key, "--scopes", "issues:read, issues:write", "--config", "app_id=7",
    )  # fmt: skip
    assert made["secrets"] == ["client_secret", "webhook_secret", "private_key"]
    assert made["webhook_url"].endswith("/webhooks/github/github")
    assert made["redirect_uri"].endswith("/connect/callback/github")
    return cli


def test_every_command_of_the_list_is_there_and_explains_itself() -> None:
    listed = CliRunner().invoke(main, ["--help"]).output
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(COMMANDS)
    for name, one in COMMANDS.items():
        answer = CliRunner().invoke(main, [name, "--help"])
        assert answer.exit_code == 0, answer.output
        assert f"{name} " in listed
        assert one.line in listed


def test_a_webhook_secret_is_rotated_once_at_a_time_and_is_never_printed(
    acme: Cli, tmp_path: Path, secret: str
) -> None:
    made = tmp_path / "new"
    first = acme.json("connections", "rotate-webhook-secret", "github", "--generate", str(made), "--yes")
    assert len(first["ending"]) == 1
    assert made.stat().st_mode & 0o777 == 0o600
    with Installation.at(data_dir=acme.data_dir) as at:
        live = at.read(lambda c: live_secrets(c, "github", WEBHOOK_SECRET))
        assert [one.open(at.vault).reveal() for one in live] == [made.read_text().strip(), "hunter2-hunter2"]
    words = ("connections", "rotate-webhook-secret", "github", "--yes")
    assert "retire-secret" in acme.json(*words, "--file", secret, code=1)["message"]
    assert "cannot be made" in acme.json(*words, "--generate", str(made), code=1)["message"]
    acme.json("connections", "retire-secret", first["ending"][0], "--yes")
    second = acme(*words, "--file", secret, "--overlap", "0")
    assert second.exit_code == 0
    assert "hunter2" not in second.output
    with Installation.at(data_dir=acme.data_dir) as at:
        live = at.read(lambda c: live_secrets(c, "github", WEBHOOK_SECRET))
        assert [one.open(at.vault).reveal() for one in live] == ["hunter2-hunter2"]


def test_a_secret_that_is_no_text_is_refused_in_a_sentence(acme: Cli, tmp_path: Path) -> None:
    key = tmp_path / "app.p12"
    key.write_bytes(b"\x30\x82\xff\xfe")
    refused = acme("connections", "add-secret", "github", "--name", "private_key", "--file", str(key))
    assert refused.exit_code == 2
    assert "in PEM" in refused.output


@pytest.mark.parametrize("verb", ["add-secret", "rotate-secret"])
def test_a_key_that_could_sign_nothing_is_refused_before_it_is_kept(acme: Cli, secret: str, verb: str) -> None:
    told = acme.json("connections", verb, "github", "--name", "private_key", "--file", secret, code=1)
    assert "not an unencrypted RSA" in told["message"]
    assert "hunter2" not in told["message"]
    with Installation.at(data_dir=acme.data_dir) as at:
        assert len(at.read(lambda c: live_secrets(c, "github", PRIVATE_KEY))) == 1


def test_a_sender_of_ones_own_is_added_whole_or_not_at_all(acme: Cli, tmp_path: Path, secret: str) -> None:
    add = ("connections", "add-sender")
    rest = ("--tenant", "acme", "--webhook-secret-file")
    assert "whsec_" in acme.json(*add, "standard", "--id", "billing", *rest, secret, code=1)["message"]
    wrong = acme.json(*add, "hmac", "--id", "shop", *rest, secret, "--config", "signed={timestamp}{body}", code=1)
    assert "signature_header" in wrong["message"]
    described = ("--config", "signature_header=X-Sig", "--config", "sender=shop")
    made = acme.json(*add, "hmac", "--id", "shop", *rest, secret, *described)
    assert made["webhook_url"].endswith("/webhooks/hmac/shop")
    key = tmp_path / "whsec"
    key.write_text("whsec_" + "a2tr" * 8 + "\n")
    acme.json(*add, "standard", "--id", "billing", *rest, str(key), "--config", "sender=billing")
    refused = acme.json("connections", "add-secret", "billing", "--name", "webhook_secret", "--file", secret, code=1)
    assert "whsec_" in refused["message"]
    acme.json("connections", "rotate-webhook-secret", "billing", "--generate", str(tmp_path / "next"), "--yes")
    assert {row["id"] for row in acme.json("connections", "list")} == {"github", "shop", "billing"}


def test_init_makes_what_is_missing_and_nothing_else(cli: Cli) -> None:
    before = {path: path.read_bytes() for path in (cli.data_dir / "keys").iterdir()}
    assert cli.json("init")["made"] == []
    assert {path: path.read_bytes() for path in (cli.data_dir / "keys").iterdir()} == before
    assert cli.data_dir.stat().st_mode & 0o777 == 0o700
    assert (cli.data_dir / "ledger.db").stat().st_mode & 0o077 == 0


def test_where_there_is_no_installation_the_next_command_is_named(tmp_path: Path) -> None:
    refused = Cli(tmp_path / "nowhere").json("tenants", "list", code=1)
    assert refused["error"] == "Misconfigured"
    assert "aswhom init" in refused["message"]
    assert not (tmp_path / "nowhere").exists()


def test_where_postgresqls_driver_is_missing_its_name_is_said(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASWHOM_DATABASE_URL", "postgresql://u:hunter2@127.0.0.1/x")
    monkeypatch.delitem(sys.modules, "pipeline.db.postgresql", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as Python has it where an import is to fail
    refused = cli.json("tenants", "list", code=1)
    assert refused["error"] == "Misconfigured"
    assert "requirements/hosts.txt" in refused["message"]
    assert "hunter2" not in refused["message"]


def test_a_ledger_of_another_version_is_not_touched(cli: Cli) -> None:
    for revision, advice in (("0001", "run `aswhom db upgrade`"), ("9000", "of a newer Aswhom: install that version")):
        with sqlite3.connect(cli.data_dir / "ledger.db") as ledger:
            ledger.execute("update alembic_version set version_num = ?", (revision,))
        ledger.close()
        assert advice in cli.json("tenants", "list", code=1)["message"]
    assert "of a newer Aswhom" in cli.json("db", "upgrade", code=1)["message"]


def test_a_wrong_use_exits_with_two(cli: Cli) -> None:
    for wrong in (["revoke", "everything", "acme"], ["jobs", "resolve", "job_1"], ["nonsense"], ["jobs", "show"]):
        assert cli(*wrong).exit_code == 2, wrong


def test_a_secret_is_read_and_never_printed(acme: Cli) -> None:
    printed = acme("connections", "list").output + acme("connections", "list", "--json").output
    assert "hunter2" not in printed
    with Installation(load(data_dir=acme.data_dir)) as at:
        (sealed,) = at.read(lambda c: live_secrets(c, "github", WEBHOOK_SECRET))
        assert sealed.open(at.vault).reveal() == "hunter2-hunter2"
    assert b"hunter2" not in (acme.data_dir / "ledger.db").read_bytes()


def test_what_is_there_already_is_not_added_twice(acme: Cli) -> None:
    again = acme.json("connections", "add", "github", "--client-id", "other", code=1)
    assert "--id" in again["message"]
    acme.json("installations", "add", "github", "9001", "acme")
    assert "installations list" in acme.json("installations", "add", "github", "9001", "acme", code=1)["message"]
    (row,) = acme.json("installations", "list")
    assert (row["external_id"], row["tenant_id"]) == ("9001", "acme")


@pytest.mark.parametrize(
    ("arguments", "credential"),
    [
        (["add-installation", "--installation", "9001"], Credential.INSTALLATION),
        (["add-static", "--token-file", "-"], Credential.STATIC),
        (["add-client-credentials"], Credential.CLIENT_CREDENTIALS),
    ],
)
def test_a_service_gets_its_credential(acme: Cli, arguments: list[str], credential: Credential) -> None:
    made = acme.json("accounts", *arguments, "--tenant", "acme", "--connection", "github", input="xoxb-token\n")
    shown = acme.json("accounts", "show", "acme/github/acme.service")
    assert shown["id"] == made["id"]
    assert (shown["credential"], shown["state"]) == (credential, AccountState.ACTIVE)
    assert shown["scopes"] == ["issues:read", "issues:write"]
    assert acme.json("accounts", "list", "--state", "active")[0]["id"] == made["id"]
    kinds = [row["kind"] for row in acme.json("audit", "search", "--since", "2026-01-01")]
    assert kinds == ["account.connected", "connection.added", "tenant.added"]
    assert "only the first 2 are shown" in acme("audit", "search", "--limit", "2").stderr
    assert acme("audit", "search", "--limit", "3").stderr == ""


def test_a_person_is_made_and_invited_only_in_the_commit_that_makes_her_link(acme: Cli) -> None:
    with Installation(load(data_dir=acme.data_dir)) as at:
        ensure = partial(add_user, tenant="acme", principal="acme.eve", now=at.now())
        nowhere = AccountKey(tenant="acme", connection="gone", principal="acme.eve")
        with pytest.raises(Misconfigured):
            at.runtime.invitations.link(nowhere, by="test", ensure=ensure, now=at.now())
    link = ("connect", "link", "--tenant", "acme", "--user", "eve", "--connection", "github")
    refused = acme.json(*link, "--return-to", "https://evil.example", code=1)
    assert "no return target" in refused["message"]
    assert acme.json("audit", "search", "--kind", "connect.invited") == []
    assert {row["id"] for row in acme.json("users", "list", "acme")} == {"acme.service"}


def test_a_connect_link_is_for_one_person(acme: Cli) -> None:
    link = acme.json("connect", "link", "--tenant", "acme", "--user", "ada", "--connection", "github")
    assert link["principal"] == "acme.ada"
    assert link["url"].startswith("http://127.0.0.1:8080/connect/")
    assert (
        link["url"]
        != acme.json("connect", "link", "--tenant", "acme", "--user", "ada", "--connection", "github")["url"]
    )
    assert {row["id"] for row in acme.json("users", "list", "acme")} == {"acme.ada", "acme.service"}
    assert (
        "tenants list"
        in acme.json("connect", "link", "--tenant", "x", "--user", "y", "--connection", "github", code=1)["message"]
    )


def test_a_configuration_is_read_by_its_model_before_it_is_stored(acme: Cli) -> None:
    enable = ("workflows", "enable", "link_pull_request", "--tenant", "acme", "--config", "-")
    refused = acme.json(*enable, input='{"label_rules": {"bug": {"channel": 3}}, "more": 1}', code=1)
    assert "label_rules.bug" in refused["message"]
    assert "more" in refused["message"]
    assert acme(*enable, input="not JSON").exit_code == 2
    assert acme.json(*enable, input="{}")["config"] == {"label_rules": {}}
    listed = {row["workflow"]: row["enabled_for"] for row in acme.json("workflows", "list")}
    assert listed["link_pull_request"] == ["acme"]
    acme.json("workflows", "disable", "link_pull_request", "--tenant", "acme")
    assert not any(row["enabled_for"] for row in acme.json("workflows", "list"))
    acme.json("workflows", "disable", "daily_digest", "--tenant", "acme", code=1)


def test_a_scheduled_workflow_that_is_switched_on_has_its_slot(acme: Cli) -> None:
    config = json.dumps({"channel": "C0123456789", "repo": "acme/shop"})
    acme.json("workflows", "enable", "daily_digest", "--tenant", "acme", "--config", "-", input=config)
    (settings,) = [row["settings"] for row in acme.json("workflows", "list") if row["workflow"] == "daily_digest"]
    assert settings[0]["next_at"]


def test_a_revocation_is_asked_about_declared_once_and_listed(acme: Cli) -> None:
    acme.json("accounts", "add-client-credentials", "--tenant", "acme", "--connection", "github")
    asked = acme("revoke", "account", "acme/github/acme.service")
    assert asked.exit_code == 2
    assert "1 active account(s)" in asked.output
    revoke = ("revoke", "account", "acme/github/acme.service", "--yes", "--reason", "left the company")
    made = acme.json(*revoke)
    assert made["scope"] == {"kind": "account", "key": "acme/github/acme.service"}
    assert acme.json("accounts", "show", "acme/github/acme.service")["state"] == AccountState.REVOKED
    (listed,) = acme.json("revocations", "list")
    assert (listed["id"], listed["reason"]) == (made["id"], "left the company")
    shown = acme.json("revocations", "show", made["id"])
    assert (shown["state"], shown["verified"]) == ("effective", None)
    late = acme.json(*revoke, "--wait", "--timeout", "0", code=1)  # nobody carries it out here
    assert late["state"] == "effective"


def test_what_there_is_not_cannot_be_revoked(acme: Cli) -> None:
    for kind, key in (("account", "acc_1"), ("user", "ada"), ("agent", "x"), ("connection", "x"), ("tenant", "x")):
        assert "aswhom" in acme.json("revoke", kind, key, "--yes", code=1)["message"]
    assert acme.json("revocations", "list") == []


def test_an_altered_receipt_or_audit_row_is_found(acme: Cli) -> None:
    made = acme.json("revoke", "tenant", "acme", "--yes")
    with Installation(load(data_dir=acme.data_dir)) as at:
        from identity.audit.sealer import Sealer
        from tests.ledger.revokers import quiet_revoker

        assert quiet_revoker(at.ledger, at.signer).advance(made["id"])
        assert Sealer(at.ledger, at.signer).seal(now=at.now())
    assert acme.json("revocations", "show", made["id"])["verified"] is True
    assert acme.json("audit", "verify")["verified"] is True
    kept = acme.data_dir / "checkpoint"
    kept.write_text(acme("audit", "checkpoint").stdout)
    assert acme.json("audit", "verify", "--checkpoint", str(kept))["verified"] is True

    with sqlite3.connect(acme.data_dir / "ledger.db") as ledger:
        ledger.execute("update revocations set receipt = json_set(receipt, '$.reason', 'none')")
        ledger.execute("drop trigger audit_no_update")
        ledger.execute("update audit set reason = 'none' where kind = 'revocation.effective'")
    ledger.close()
    assert acme.json("revocations", "show", made["id"], code=1)["verified"] is False
    assert acme.json("audit", "verify", code=1)["verified"] is False


def test_a_new_vault_key_is_used_and_the_old_secrets_still_open(acme: Cli) -> None:
    assert acme.json("keys", "add")["id"] == 2
    acme.json(
        "accounts", "add-static", "--tenant", "acme", "--connection", "github", "--token-file", "-", input="t0ken"
    )
    assert acme.json("connect", "link", "--tenant", "acme", "--user", "ada", "--connection", "github")["url"]
    assert "BEGIN PUBLIC KEY" in acme.json("keys", "public")["public_key"]


@pytest.mark.parametrize(
    ("as_json", "shown"), [(False, "\r\x1b[Kforgetting bodies: 100\r\x1b[Kforgetting bodies: 1,100\n"), (True, "")]
)
def test_a_count_without_an_end_is_shown_to_terminals_alone(
    as_json: bool, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    with Output(as_json=as_json).count("forgetting") as tell:
        tell("bodies", 100)
        tell("bodies", 1000)
    assert terminal.getvalue() == shown


def test_lists_that_are_empty_say_what_fills_them(cli: Cli) -> None:
    for words in (["tenants", "list"], ["accounts", "list"], ["connections", "list"], ["jobs", "list"]):
        answer = cli(*words)
        assert answer.exit_code == 0
        assert "No " in answer.output
        assert cli.json(*words) == []


def test_enabling_again_keeps_what_was_configured(acme: Cli) -> None:
    config = {"label_rules": {"bug": {"team_id": "team-1", "channel": "C0000001"}}}
    enable = ("workflows", "enable", "link_pull_request", "--tenant", "acme")
    stored = acme.json(*enable, "--config", "-", input=json.dumps(config))["config"]
    assert stored["label_rules"]
    acme.json("workflows", "disable", "link_pull_request", "--tenant", "acme")
    assert acme.json(*enable)["config"] == stored
    assert acme.json(*enable, "--config", "-", input="{}")["config"] == {"label_rules": {}}


@pytest.mark.parametrize(
    ("group", "id", "kind"),
    [
        ("tenants", "acme", "tenant"),
        ("users", "acme.ada", "user"),
        ("connections", "github", "connection"),
        ("agents", "devops-assistant", "agent"),
    ],
)
def test_a_scope_is_stopped_and_opened_again(acme: Cli, group: str, id: str, kind: str) -> None:
    if kind == "user":
        acme.json("aliases", "add", "--tenant", "acme", "--user", "ada", "--provider", "github", "--external-id", "7")
    assert acme(group, "stop", id).exit_code == 2  # it asks first
    assert acme.json(group, "stop", id, "--yes") == {
        "scope": {"kind": kind, "key": id}, "stopped": True, "changed": True,
    }  # fmt: skip
    assert not acme.json(group, "stop", id, "--yes")["changed"]
    said = [finding["says"] for finding in acme.json("doctor", "--offline", code=1)["findings"]]
    assert f"{kind} {id} is stopped until it is opened again: `aswhom {group} open {id}`" in said
    assert acme.json(group, "open", id)["changed"]
    assert not acme.json(group, "open", id)["changed"]
    assert [row["kind"] for row in acme.json("audit", "search", "--kind", "scope")] == ["scope.opened", "scope.stopped"]
    assert "aswhom" in acme.json(group, "stop", "nobody", "--yes", code=1)["message"]


def test_an_agent_is_listed_and_revoked_before_its_first_job(acme: Cli) -> None:
    listed = {row["id"]: row for row in acme.json("agents", "list")}
    assert {"answer_mention", "link_pull_request"} < set(listed["devops-assistant"]["workflows"])
    assert not listed["devops-assistant"]["has_had_a_job"]
    assert acme.json("revoke", "agent", "devops-assistant", "--yes")["scope"]["key"] == "devops-assistant"


def test_only_webhooks_that_are_received_have_an_address(acme: Cli) -> None:
    from identity.providers import PROFILES
    from webhooks.sources import SOURCES

    addresses = ("--api-url", "https://api.example", "--token-url", "https://as.example/token")
    for provider in PROFILES:
        ours = ("--id", f"own-{provider}", "--client-id", "x", "--config", f"people=own-{provider}")
        made = acme.json("connections", "add", provider, *ours, *addresses)
        assert (made["webhook_url"] is not None) == (provider in SOURCES), provider


def test_the_vaults_keys_are_rotated_end_to_end(acme: Cli) -> None:
    assert [key["secrets"] for key in acme.json("keys", "list")] == [3]
    assert acme.json("keys", "add")["id"] == 2
    refused = acme.json("keys", "retire", "1", "--yes", code=1)
    assert "3 stored secrets need vault key 1" in refused["message"]
    assert "aswhom keys rewrap" in refused["message"]
    assert acme.json("keys", "rewrap") == {
        "key": 2, "moved": 3, "left": 0, "fields": {"connection_secrets.sealed": 3}
    }  # fmt: skip
    assert acme.json("keys", "rewrap")["moved"] == 0
    assert "was not restarted" in acme("keys", "retire", "1").output
    acme.json("keys", "retire", "1", "--yes")
    assert acme.json("keys", "list") == [{"id": 2, "seals": True, "opens": True, "secrets": 3}]
