"""`aswhom accounts` and `aswhom connect`: why an account is as it is, what to do, and that it works."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, insert, select, update

from deploy.cli.accounts import refresh
from deploy.cli.output import Output
from deploy.installation import Installation
from deploy.settings import load
from identity.accounts.scopes import remember_stop
from identity.accounts.states import move_account, park
from identity.connect.consent_ledger import Consent, Consented
from identity.connect.consents import CompletedConsent, write_consent
from identity.connect_sessions.tables import connect_sessions
from identity.connections.registry import pause_connection, resume_connection
from identity.errors import Unavailable
from identity.model import (
    AccountKey,
    AccountState,
    Credential,
    PrincipalKind,
    ReconnectCause,
    Scope,
    ScopeKind,
    TokenAnswer,
)
from identity.principals import ensure_agent, ensure_principal
from identity.refresh.tables import refresh_intents
from identity.secret import Secret
from identity.sql.sequence import next_number
from identity.sql.store import CommitUnknown
from identity.tables import accounts, grants
from pipeline.jobs.awaited import consent_of
from pipeline.states import JobState, Wait
from pipeline.tables import jobs, pinned_configuration
from tests.deploy.conftest import Cli, told
from tests.identity.providers import PretendProvider, Reply, pretend_provider, reply

T = TypeVar("T")
ADA = AccountKey(tenant="acme", connection="github", principal="acme.ada")
RETURN = "https://app.example/settings"


@pytest.fixture
def provider() -> Iterator[PretendProvider]:
    with pretend_provider() as pretend:
        yield pretend


@dataclass
class Acme:
    """A tenant, a connection to the pretend provider, and Ada, who consented."""

    cli: Cli
    id: str = ""

    def at(self) -> Installation:
        return Installation(load(data_dir=self.cli.data_dir))

    def write(self, fn: Any) -> Any:
        with self.at() as at:
            return at.write(fn)

    def consents(
        self,
        *,
        scopes: tuple[str, ...] = ("issues:read", "extra"),
        left: timedelta = timedelta(hours=1),
        renewable: bool = True,
    ) -> None:
        now = datetime.now(UTC)
        answer = TokenAnswer(
            access_token=Secret("access-0"),
            refresh_token=Secret("refresh-0") if renewable else None,
            expires_at=now + left,
            scopes=scopes,
            token_type="bearer",
        )
        with self.at() as at:
            at.write(
                lambda c: ensure_principal(
                    c, id="acme.ada", tenant="acme", kind=PrincipalKind.USER, name="ada", now=now
                )
            )
            consent = Consent(
                id=at.ids("acc"),
                key=ADA,
                provider="github",
                credential=Credential.AUTHORIZATION_CODE,
                consented=at.write(next_number),
                external_id="4711",
                external_login="mona",
            )
            completed = CompletedConsent(
                consent=consent, answer=answer, scopes=scopes, at=now, also=lambda connection, stored: None
            )
            done = write_consent(at.ledger, at.vault, completed)
        assert isinstance(done, Consented)
        self.id = done.account

    def needs_reconnect(self) -> None:
        reason, now = "the provider refused the refresh token (invalid_grant)", datetime.now(UTC)
        self.write(lambda c: move_account(c, self.id, to=AccountState.NEEDS_RECONNECT, reason=reason, now=now))

    def job_waits(self) -> None:
        """A job of the DevOps assistant that waits for Ada."""
        now = datetime.now(UTC)

        def park(c: Connection) -> None:
            ensure_agent(c, id="devops-assistant", tenant=None, name="DevOps", now=now)
            c.execute(insert(pinned_configuration), {"sha256": "0", "document": {}})
            row = {
                "id": "job-1",
                "tenant_id": "acme",
                "agent_id": "devops-assistant",
                "workflow": "link_pull_request",
                "pattern": "hybrid",
                "event": {},
                "config_sha256": "0",
                "state": JobState.WAITING,
                "wait": Wait.CONSENT,
                "reason": "github.Comment needs the consent of acme.ada",
                "accepted": 1,
                "due_at": now,
                "expires_at": now + timedelta(days=1),
                "waits_for": consent_of(ADA),
                "lacks": ["issues:write"],
                "created_at": now,
            }
            c.execute(insert(jobs), row)

        self.write(park)

    def show(self) -> Any:
        return self.cli.json("accounts", "show", self.id)


@pytest.fixture
def acme(cli: Cli, provider: PretendProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Acme:
    monkeypatch.setenv("ASWHOM_ALLOW_HOSTS", "127.0.0.1")
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    cli.json("tenants", "add", "acme", "--name", "Acme")
    cli.json(
        "connections", "add", "github", "--client-id", "Iv1", "--client-secret-file", str(secret), "--scopes",
        "issues:read", "--api-url", provider.url, "--authorize-url", f"{provider.url}/authorize", "--token-url",
        f"{provider.url}/token",
    )  # fmt: skip
    made = Acme(cli)
    made.consents()
    return made


def test_the_list_says_why_and_what_to_do_and_can_be_narrowed(acme: Acme) -> None:
    acme.needs_reconnect()
    acme.cli.json(
        "accounts", "add-static", "--tenant", "acme", "--connection", "github", "--token-file", "-", input="t"
    )
    ada, service = acme.cli.json("accounts", "list", "--tenant", "acme")
    assert ada["why"] == "the provider refused the refresh token (invalid_grant)"
    assert ada["next"] == f"aswhom accounts reconnect {acme.id}"
    assert (service["state"], service["next"]) == ("active", None)
    narrowed = acme.cli.json("accounts", "list", "--state", "needs_reconnect", "--provider", "github")
    assert [row["id"] for row in narrowed] == [acme.id]
    assert acme.cli.json("accounts", "list", "--provider", "linear") == []
    assert acme.cli("accounts", "list", "--state", "broken").exit_code == 2
    assert f"aswhom accounts reconnect {acme.id}" in acme.cli("accounts", "list").output
    assert acme.cli.json("accounts", "list", "--limit", "1") == [ada]
    assert "only the first 1 are shown" in acme.cli("accounts", "list", "--limit", "1").stderr


def test_one_account_is_shown_whole(acme: Acme) -> None:
    acme.job_waits()
    now = datetime.now(UTC)
    intent = {
        "id": "ref-1", "account_id": acme.id, "generation": 1, "consented": 1, "state": "unknown", "opened": 1,
        "started_at": now, "send_before": now, "settled_by": now, "presented": 1, "outcome": "no answer",
    }  # fmt: skip
    acme.write(lambda c: c.execute(insert(refresh_intents), intent))
    shown = acme.show()
    assert (shown["generation"], shown["scopes"], shown["external_login"]) == (1, ["issues:read", "extra"], "mona")
    assert (shown["state"], shown["next"], shown["last_used_at"]) == ("active", None, None)
    story = shown["latest_refresh"]
    assert (story["intent"], story["state"], story["presented"], story["why"]) == ("ref-1", "unknown", 1, "no answer")
    assert (
        story["next"] == "let the person connect the account again: to present the credential anew could end the grant"
    )
    assert [one["id"] for one in shown["waiting_jobs"]] == ["job-1"]
    told = acme.cli("accounts", "show", str(ADA)).output
    for said in ("its grant is good", "ref-1", "no answer", "let the person", "job-1", "mona"):
        assert said in told
    assert "access-0" not in told + str(shown)


def test_an_active_account_below_what_is_revoked_stopped_or_paused_says_that_it_is_of_no_use(acme: Acme) -> None:
    def says(why: str, next: str) -> None:
        (listed,) = acme.cli.json("accounts", "list")
        for row in (acme.show(), listed):
            assert row["state"] == "active"
            assert why in row["why"]
            assert row["next"] == next

    acme.write(lambda c: pause_connection(c, "github", reason="invalid_client"))
    says("its provider connection is paused: invalid_client", "aswhom connections resume github")
    acme.write(lambda c: remember_stop(c, Scope(kind=ScopeKind.CONNECTION, key="github"), stopped=True))
    says("no step opens with it: connection:github is stopped", "aswhom connections open github")
    acme.write(lambda c: remember_stop(c, Scope(kind=ScopeKind.CONNECTION, key="github"), stopped=False))
    acme.cli.json("revoke", "user", "acme.ada", "--yes", "--reason", "left")
    says("no step opens with it: user:acme.ada was revoked", f"aswhom accounts reconnect {acme.id}")


def test_a_reconnect_asks_for_what_was_granted_and_for_what_waiting_jobs_lack(acme: Acme) -> None:
    acme.needs_reconnect()
    acme.job_waits()
    made = acme.cli.json("accounts", "reconnect", acme.id)
    assert made["why"] == "the provider refused the refresh token (invalid_grant)"
    assert made["scopes"] == ["issues:read", "extra", "issues:write"]  # github.Comment needs the last one
    rows = acme.write(lambda c: c.execute(select(connect_sessions.c.scopes, connect_sessions.c.any_account)).all())
    assert [(row.scopes, row.any_account) for row in rows] == [(made["scopes"], False)]
    assert acme.cli.json("accounts", "reconnect", str(ADA), "--scopes", "a,b", "--any-account")["scopes"] == ["a", "b"]


def test_nobody_consents_for_a_service(acme: Acme) -> None:
    acme.cli.json("accounts", "add-client-credentials", "--tenant", "acme", "--connection", "github")
    refused = acme.cli.json("accounts", "reconnect", "acme/github/acme.service", code=1)
    assert "a service's account" in refused["message"]
    acme.cli.json("revoke", "account", "acme/github/acme.service", "--yes", "--reason", "rotate")
    shown = acme.cli.json("accounts", "show", "acme/github/acme.service")
    assert shown["next"] == "aswhom accounts add-client-credentials --tenant acme --connection github"


def test_a_refresh_is_forced_once_through_the_coordinator(acme: Acme, provider: PretendProvider) -> None:
    done = acme.cli.json("accounts", "refresh", acme.id)
    assert (done["renewed"], done["generation"]) == (True, 2)
    assert provider.presented == {"refresh-0": 1}
    assert acme.show()["generation"] == 2
    (row,) = acme.cli.json("audit", "search", "--kind", "account.refresh_forced")
    assert (row["outcome"], row["account_id"]) == ("renewed", acme.id)
    assert "by cli:" in row["reason"]


def test_a_refresh_that_the_provider_does_not_answer_keeps_what_there_is(acme: Acme, provider: PretendProvider) -> None:
    provider.answer = lambda form: reply({"error": "temporarily_unavailable"}, 503)
    kept = acme.cli.json("accounts", "refresh", acme.id, code=1)
    assert (kept["renewed"], kept["generation"]) == (False, 1)
    assert kept["next"] == f"aswhom accounts refresh {acme.id}"
    assert acme.show()["state"] == "active"


def test_a_refresh_of_a_dead_grant_says_so_and_what_is_next(acme: Acme, provider: PretendProvider) -> None:
    provider.answer = lambda form: reply({"error": "bad_refresh_token"})
    refused, again = acme.cli.json("accounts", "refresh", acme.id, code=1), f"aswhom accounts reconnect {acme.id}"
    assert (refused["error"], refused["next"]) == ("ReauthRequired", again)
    shown = acme.show()
    assert (shown["state"], shown["next"]) == ("needs_reconnect", again)
    assert f". Next: {again}" in acme.cli("accounts", "refresh", acme.id).output


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply({"error": "bad_refresh_token"}), "ReauthRequired"),
        (None, "ReauthRequired"),  # it may have rotated
        (reply({}, 429, retry_after="60"), "Unavailable"),
        (reply({"error": "incorrect_client_credentials"}), "Misconfigured"),
    ],
    ids=["dead", "unknown", "later", "client"],
)
def test_a_forced_refresh_that_fails_is_audited_too(
    acme: Acme, provider: PretendProvider, answer: Reply | None, error: str
) -> None:
    acme.consents(left=timedelta(seconds=-1))  # nothing is left of the token that could be kept
    provider.answer = lambda form: answer
    assert acme.cli.json("accounts", "refresh", acme.id, code=1)["error"] == error
    assert provider.presented.total() == 1
    (row,) = acme.cli.json("audit", "search", "--kind", "account.refresh_forced")
    assert (row["outcome"], row["account_id"], row["detail"]["error"]) == ("failed", acme.id, error)
    assert "by cli:" in row["reason"]


def test_a_forced_refresh_that_fails_where_the_audit_cannot_be_written_says_why_it_failed(
    acme: Acme, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme.consents(left=timedelta(seconds=-1))
    acme.write(lambda c: pause_connection(c, "github", reason="told so"))
    monkeypatch.setenv("ASWHOM_TURN_TIMEOUT", "0.1")
    with closing(sqlite3.connect(acme.cli.data_dir / "ledger.db", isolation_level=None)) as busy:
        busy.execute("BEGIN IMMEDIATE")
        result = acme.cli("accounts", "refresh", acme.id, "--json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert (said["error"], said["message"]) == ("Misconfigured", "provider connection github is paused: told so")
    assert "may not be in the audit" in result.stderr
    # Which of the two depends on whether its turn came before it was given up.
    assert "CommitUnknown" in result.stderr or "Unavailable" in result.stderr


@pytest.mark.parametrize(("fault", "readable"), [(Unavailable("no turn"), True), (CommitUnknown("lost"), False)])
def test_a_forced_refresh_that_succeeds_where_nothing_else_can_be_written_or_read_tells_its_generation(
    acme: Acme,
    provider: PretendProvider,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    fault: Exception,
    readable: bool,
) -> None:
    """Told that it failed, a script would give the command again, and spend one more refresh token."""

    class Failing(Installation):
        """Its ledger fails as soon as the coordinator has renewed the token."""

        def read(self, fn: Callable[[Connection], T]) -> T:
            if not readable and provider.presented:
                raise Unavailable("it is away")
            return super().read(fn)

        def write(self, fn: Callable[[Connection], T], *, ahead: bool = False) -> T:
            raise fault

    with Failing(load(data_dir=acme.cli.data_dir)) as at:
        code = vars(refresh.callback)["__wrapped__"](at, Output(as_json=True), id=acme.id)
    said = json.loads(capsys.readouterr().out)
    (unaudited,) = (vars(line) for line in caplog.records if vars(line).get("action") == "account.refresh_unaudited")
    assert unaudited["error"] == type(fault).__name__
    assert (code, said["renewed"], said["generation"]) == (0, True, 2)
    assert (said["expires_at"] is not None) == readable
    assert provider.presented == {"refresh-0": 1}


def test_a_token_that_stays_the_same_is_not_refreshed(acme: Acme) -> None:
    made = acme.cli.json(
        "accounts", "add-static", "--tenant", "acme", "--connection", "github", "--token-file", "-", input="t0ken"
    )
    assert "add-static" in acme.cli.json("accounts", "refresh", made["id"], code=1)["message"]


def test_an_account_whose_person_the_provider_wanted_goes_on_with_what_it_has_once_it_does_not(
    acme: Acme, provider: PretendProvider
) -> None:
    """An admin turned a policy on, and off again: nobody needs to click."""
    acme.job_waits()
    granting, provider.answer = provider.answer, lambda form: reply({"error": "interaction_required"}, 400)
    kept = acme.cli.json("accounts", "refresh", acme.id, code=1)
    assert (kept["renewed"], acme.show()["state"]) == (False, "active")
    assert "before its present token ends" in acme.show()["latest_refresh"]["next"]
    ended = datetime.now(UTC) - timedelta(seconds=1)
    acme.write(lambda c: c.execute(update(grants).values(expires_at=ended)))
    acme.write(lambda c: c.execute(update(refresh_intents).values(retry_at=ended)))
    acme.cli.json("accounts", "refresh", acme.id, code=1)
    assert acme.show()["state"] == "needs_reconnect"
    acme.write(lambda c: c.execute(update(accounts).values(reason="in the words of another version")))
    assert acme.cli.json("accounts", "retry", "--connection", "github", "--yes") == {"retried": [acme.id]}
    assert acme.show()["state"] == "active"
    assert acme.write(lambda c: c.execute(select(jobs.c.state)).scalar_one()) == JobState.QUEUED
    acme.cli.json("accounts", "refresh", acme.id, code=1)  # it wants her still, and says so again
    provider.answer = granting
    assert acme.cli.json("accounts", "retry", str(ADA)) == {"retried": [acme.id]}
    assert acme.cli.json("accounts", "refresh", acme.id)["generation"] == 2
    assert len(acme.cli.json("audit", "search", "--kind", "account.retried")) == 2
    assert "it is active" in acme.cli.json("accounts", "retry", acme.id, code=1)["message"]
    acme.needs_reconnect()
    assert "did not ask for its person" in acme.cli.json("accounts", "retry", acme.id, code=1)["message"]
    none = acme.cli.json("accounts", "retry", "--connection", "github", code=1)["message"]
    assert none.endswith("no account of github waits for its person: there is nothing to retry")
    assert acme.cli("accounts", "retry").exit_code != 0


def test_doctor_names_the_accounts_that_a_provider_refuses_for_themselves(
    acme: Acme, provider: PretendProvider
) -> None:
    granting, provider.answer = provider.answer, lambda form: reply({"error": "unauthorized_client"}, 400)
    acme.cli.json("accounts", "refresh", acme.id, code=1)
    acme.write(lambda c: c.execute(update(refresh_intents).values(outcome="in the words of another version")))
    says = [says for state, says in told(acme.cli, "connections") if state == "wrong"]
    assert any(f"(unauthorized_client), as {acme.id}" in one for one in says)
    assert "an admin of its organisation" in acme.show()["latest_refresh"]["next"]
    acme.write(lambda c: c.execute(update(refresh_intents).values(retry_at=None)))
    provider.answer = granting
    acme.cli.json("accounts", "refresh", acme.id)
    assert not any("unauthorized_client" in says for _, says in told(acme.cli, "connections"))


def test_an_account_whose_person_was_wanted_and_that_has_nothing_left_is_not_said_to_be_waited_for_by_nobody(
    acme: Acme,
) -> None:
    acme.consents(renewable=False)
    cause, now = ReconnectCause.PERSON, datetime.now(UTC)
    acme.write(lambda c: park(c, acme.id, "the provider wants somebody", cause=cause, now=now))
    assert "nothing is left" in acme.cli.json("accounts", "retry", acme.id, code=1)["message"]


@pytest.mark.parametrize(
    ("user", "life"),
    [({"id": 4711, "login": "mona"}, "alive"), ({"id": 1, "login": "eve"}, "other"), ({"message": "no"}, "refused")],
)
def test_a_test_asks_whose_the_token_is_and_changes_nothing(
    acme: Acme, provider: PretendProvider, user: Any, life: str
) -> None:
    provider.user = user
    before = acme.show()
    found = acme.cli.json("accounts", "test", acme.id, code=0 if life == "alive" else 1)
    assert found["life"] == life
    assert found["said"].startswith("GitHub")
    assert acme.show() == before
    assert provider.presented.total() == 0


def test_of_a_refused_token_the_next_step_is_the_one_that_helps(acme: Acme, provider: PretendProvider) -> None:
    """A refresh helps where something renews the token, and nothing above it is in the way."""
    provider.user = {"message": "no"}

    def next_(id: str) -> str | None:
        found = acme.cli.json("accounts", "test", id, code=1)
        assert found["life"] == "refused"
        step: str | None = found["next"]
        return step

    assert next_(acme.id) == f"aswhom accounts refresh {acme.id}"
    acme.write(lambda c: pause_connection(c, "github", reason="invalid_client"))
    assert next_(acme.id) == "aswhom connections resume github"
    acme.write(lambda c: resume_connection(c, "github"))
    acme.needs_reconnect()
    assert next_(acme.id) == f"aswhom accounts reconnect {acme.id}"
    acme.consents(renewable=False)
    assert next_(acme.id) == f"aswhom accounts reconnect {acme.id}"
    assert acme.cli.json("accounts", "refresh", acme.id, code=1)["next"] == f"aswhom accounts reconnect {acme.id}"
    service = ("--tenant", "acme", "--connection", "github")
    static = acme.cli.json("accounts", "add-static", *service, "--token-file", "-", input="t0ken")
    assert next_(static["id"]) == "aswhom accounts add-static --tenant acme --connection github"


def test_a_service_that_has_no_token_yet_gets_one_by_a_refresh(acme: Acme) -> None:
    service = ("--tenant", "acme", "--connection", "github")
    made = acme.cli.json("accounts", "add-client-credentials", *service)
    found = acme.cli.json("accounts", "test", made["id"], code=1)
    assert (found["life"], found["next"]) == ("none", f"aswhom accounts refresh {made['id']}")


def test_an_expired_token_is_not_shown_to_anybody(acme: Acme) -> None:
    acme.consents(left=timedelta(seconds=-1))
    found = acme.cli.json("accounts", "test", acme.id, code=1)
    assert (found["life"], found["next"]) == ("expired", f"aswhom accounts refresh {acme.id}")


def test_a_revoked_token_is_not_shown_to_anybody(acme: Acme, provider: PretendProvider) -> None:
    acme.cli.json("revoke", "user", "acme.ada", "--yes", "--reason", "left")
    provider.forget()
    found = acme.cli.json("accounts", "test", acme.id, code=1)
    assert (found["life"], found["next"]) == ("revoked", f"aswhom accounts reconnect {acme.id}")
    assert provider.asked == 0


def test_a_link_leads_back_only_where_an_operator_said(acme: Acme) -> None:
    link = ("connect", "link", "--tenant", "acme", "--user", "ada", "--connection", "github", "--return-to", RETURN)
    assert "aswhom connect add-return" in acme.cli.json(*link, code=1)["message"]
    assert "cannot be returned to" in acme.cli.json("connect", "add-return", "app.example", code=1)["message"]
    made = acme.cli.json("connect", "add-return", RETURN, "--tenant", "acme")
    assert "already" in acme.cli.json("connect", "add-return", RETURN, "--tenant", "acme", code=1)["message"]
    assert [row["url"] for row in acme.cli.json("connect", "returns")] == [RETURN]
    assert acme.cli.json(*link)["return_to"] == RETURN
    acme.cli.json("connect", "remove-return", made["id"], "--yes")
    assert "no return target" in acme.cli.json(*link, code=1)["message"]
    assert "aswhom connect returns" in acme.cli.json("connect", "remove-return", made["id"], "--yes", code=1)["message"]


def test_scopes_that_nothing_needs_are_told_with_what_to_do_about_a_service(acme: Acme) -> None:
    ours = acme.cli.json(
        "accounts", "add-static", "--tenant", "acme", "--connection", "github", "--scopes", "pull_requests:read",
        "--token-file", "-", input="t",
    )["id"]  # fmt: skip
    hers, service = acme.cli.json("accounts", "scopes", "--tenant", "acme")
    assert (hers["account"], hers["principal"], hers["broad"]) == (acme.id, "acme.ada", False)
    assert (hers["granted"], hers["used"]) == (["issues:read", "extra"], [])
    assert hers["idle"] == hers["unused"] == ["extra", "issues:read"]
    assert (service["account"], service["idle"], service["broad"]) == (ours, ["pull_requests:read"], True)
    assert [row["account"] for row in acme.cli.json("accounts", "scopes", "--broad")] == [ours]
    assert acme.cli.json("accounts", "scopes", "--limit", "1") == [hers]
    assert "only the first 1 are shown" in acme.cli("accounts", "scopes", "--limit", "1").stderr
    assert f"{ours}: nothing that is switched on needs pull_requests:read" in acme.cli("accounts", "scopes").output
    acme.cli.json("workflows", "enable", "link_pull_request", "--tenant", "acme")
    assert acme.cli.json("accounts", "scopes", "--broad") == []
    assert "tenants list" in acme.cli.json("accounts", "scopes", "--tenant", "nobody", code=1)["message"]
    assert acme.cli("accounts", "scopes", "--days", "91").exit_code == 2


def test_what_is_said_of_a_scope_that_nothing_needs_can_be_done_as_it_is_said(acme: Acme) -> None:
    arguments = ("accounts", "add-static", "--tenant", "acme", "--connection", "github", "--token-file", "-")
    scopes = "issues:read,issues:write,pull_requests:read,contents:read"
    ours = acme.cli.json(*arguments, "--scopes", scopes, input="t")["id"]
    caller = ("api-keys", "add", "--tenant", "acme", "--agent", "bot", "--tools", "github.Comment")
    key = acme.cli.json(*caller)["id"]
    (service,) = acme.cli.json("accounts", "scopes", "--broad")
    assert "issues:read" not in service["idle"], "issues:write, which is needed, includes it: it cannot be taken away"
    assert service["idle"] == ["contents:read", "pull_requests:read"]
    said = acme.cli("accounts", "scopes", "--broad").output
    (command,) = re.findall(rf"`aswhom (accounts narrow {ours} [^`]*)`", said)
    acme.cli.json(*shlex.split(command), "--yes")
    assert acme.cli.json("accounts", "scopes", "--broad") == []
    acme.cli.json("api-keys", "revoke", key, "--yes")
    (command,) = re.findall(rf"`aswhom (accounts narrow {ours} [^`]*)`", acme.cli("accounts", "scopes").output)
    acme.cli.json(*shlex.split(command), "--yes")
    assert acme.cli.json("accounts", "scopes", "--broad") == []
