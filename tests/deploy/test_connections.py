"""Provider connections by the command line: every row, discovery, and secrets that follow each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select

from deploy.cli.connection_secrets import retire
from deploy.cli.output import Output
from deploy.cli.senders import rotate as rotate_webhook_secret
from deploy.installation import Installation
from deploy.settings import load
from identity.audit import Act
from identity.connections.discovery import discover
from identity.connections.registry import get_connection, pause_connection, was_changed
from identity.connections.secrets import CLIENT_SECRET, PRIVATE_KEY, WEBHOOK_SECRET, live_secrets, refuse_secret
from identity.model import Credential
from identity.providers import PROFILES
from identity.tables import grants
from pipeline.desk.connections import readdress
from tests.deploy.conftest import Cli
from tests.identity.keys import pem
from tests.identity.published_providers import Server, server


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text("hunter2-hunter2\n")
    return str(path)


@pytest.fixture
def github(cli: Cli, secret: str) -> Cli:
    cli.json("tenants", "add", "acme", "--name", "Acme")
    cli.json("connections", "add", "github", "--client-id", "Iv1", "--client-secret-file", secret)
    return cli


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("ASWHOM_ALLOW_HOSTS", "127.0.0.1")
    with server() as playing:
        playing.say(
            200,
            {
                "issuer": playing.url,
                "authorization_endpoint": f"{playing.url}/auth",
                "token_endpoint": f"{playing.url}/token",
                "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
            },
        )
        yield playing


@pytest.mark.parametrize("name", sorted(set(PROFILES) - {"oidc", "oauth2", "salesforce", "zendesk"}))
def test_a_connection_needs_no_more_than_a_client(cli: Cli, secret: str, name: str) -> None:
    made = cli.json("connections", "add", name, "--client-id", "c", "--client-secret-file", secret)
    assert made["redirect_uri"].endswith(f"/connect/callback/{name}")
    shown = cli.json("connections", "show", name)
    assert (shown["token_url"], shown["provider"]) == (PROFILES[name].token_url, name)


def test_what_a_row_cannot_know_has_to_be_given(cli: Cli, secret: str) -> None:
    add = ("connections", "add", "salesforce", "--client-id", "c", "--client-secret-file", secret)
    assert "--api-url" in cli.json(*add, code=1)["message"]
    cli.json(*add, "--api-url", "https://acme.my.salesforce.com")
    refused = cli.json("connections", "add", "oauth2", "--client-id", "c", "--api-url", "http://10.0.0.1", code=1)
    assert "--token-url" in refused["message"]
    given = ("--api-url", "http://10.0.0.1", "--token-url", "https://as.example/token")
    assert "not https" in cli.json("connections", "add", "oauth2", "--client-id", "c", *given, code=1)["message"]


def test_a_second_server_of_a_provider_has_a_name_of_its_own_for_its_people(github: Cli) -> None:
    add = (
        "connections",
        "add",
        "github",
        "--id",
        "ghe",
        "--client-id",
        "c",
        "--token-url",
        "https://ghe.example/token",
    )
    assert "--config people=ghe" in github.json(*add, code=1)["message"]
    assert "people is the name" in github.json(*add, "--config", "people=a b", code=1)["message"]
    assert github.json(*add, "--config", "people=ghe")["id"] == "ghe"


def test_nobodys_users_are_taken_for_other_people(github: Cli, secret: str) -> None:
    """By an alias people act, and approve."""
    okta = (
        "transmitters",
        "add",
        "--issuer",
        "https://i.example",
        "--audience",
        "a",
        "--jwks-url",
        "https://i.example",
    )
    github.json(*okta, "okta", "--tenant", "acme")
    common = ("--client-id", "c", "--client-secret-file", secret, "--api-url", "https://api.example")
    add = ("connections", "add", "oidc", *common, "--token-url", "https://as.example/token")
    for people in ("console", "github", "okta"):
        assert f"{people} names" in github.json(*add, "--config", f"people={people}", code=1)["message"]
    github.json(*add)
    another = ("connections", "add", "oidc", *common, "--id", "idp", "--token-url", "https://idp.example/token")
    assert "user 1 of connection oidc" in github.json(*another, code=1)["message"]
    github.json(*another, "--config", "people=idp")
    third = ("connections", "add", "oauth2", *common, "--token-url", "https://third.example/token")
    assert "user 1 of connection idp" in github.json(*third, "--config", "people=idp", code=1)["message"]
    for name in ("console", "github", "idp"):
        assert f"{name} names" in github.json(*okta, name, "--tenant", "acme", code=1)["message"]


def test_the_rows_are_listed(cli: Cli) -> None:
    rows = cli.json("connections", "providers")
    assert {row["name"] for row in rows} == set(PROFILES)
    assert cli("connections", "providers", "--page").output.startswith("# Providers\n")
    assert cli("connections", "providers", "--page", "--json").exit_code == 2


def test_an_issuer_is_discovered_and_again_when_it_moves(cli: Cli, secret: str, issuer: Server) -> None:
    cli.json("connections", "add", "oidc", "--client-id", "c", "--client-secret-file", secret, "--issuer", issuer.url)
    shown = cli.json("connections", "show", "oidc")
    assert (shown["token_url"], shown["config"]["client_auth"]) == (f"{issuer.url}/token", "client_secret_post")
    assert cli.json("connections", "discover", "oidc")["changed"] is False
    document = issuer.next[1]
    assert document is not None
    issuer.say(200, {**document, "token_endpoint": f"{issuer.url}/token/v2"})
    assert cli.json("connections", "discover", "oidc")["changed"] is True
    (moved,) = cli.json("audit", "search", "--kind", "connection.discovered")  # of the two, the one that changed it
    assert moved["detail"]["token_url"] == f"{issuer.url}/token/v2"
    assert cli.json("connections", "show", "oidc")["token_url"] == f"{issuer.url}/token/v2"
    more = {"revocation_endpoint": f"{issuer.url}/revoke", "authorization_response_iss_parameter_supported": True}
    issuer.say(200, {**document, "token_endpoint": f"{issuer.url}/token/v2", **more})
    cli.json("connections", "discover", "oidc")
    assert cli.json("connections", "show", "oidc")["config"]["sends_iss"] == "true"
    with Installation(load(data_dir=cli.data_dir)) as at:
        issuer.say(200, {**document, "token_endpoint": f"{issuer.url}/token/v2"})
        found = discover(at.http, issuer.url)
        cli.json("connections", "name-people", "oidc", "idp")  # while what was found is on its way
        readdressed = partial(
            readdress, id="oidc", found=found, act=Act(audit_id="aud-1", by="ops", now=datetime.now(UTC))
        )
        at.write(readdressed)
    kept = cli.json("connections", "show", "oidc")["config"]
    assert kept.keys() == {"issuer", "client_auth", "people", "revocation_url"}  # no `iss` is waited for
    issuer.say(200, {**document, "issuer": "https://elsewhere.example"})
    assert "another issuer" in cli.json("connections", "discover", "oidc", code=1)["message"]
    assert cli.json("connections", "show", "oidc")["token_url"] == f"{issuer.url}/token/v2"


def test_a_service_accounts_file_is_all_google_needs(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_text(json.dumps({"private_key": pem(), "client_email": "r@p.example", "private_key_id": "k"}))
    cli.json("tenants", "add", "acme")
    made = cli.json("connections", "add", "google", "--service-account-file", str(file), "--scopes", "drive")
    assert made["secrets"] == [PRIVATE_KEY]
    cli.json("accounts", "add-jwt-bearer", "--tenant", "acme", "--connection", "google")
    shown = cli.json("accounts", "show", "acme/google/acme.service")
    assert (shown["credential"], shown["scopes"]) == (Credential.JWT_BEARER, ["drive"])
    assert "PRIVATE KEY" not in cli("connections", "show", "google", "--json").output


def test_a_private_key_that_follows_another_has_a_kid_of_its_own(cli: Cli) -> None:
    file = {"private_key": pem(), "client_email": "r@p.example", "private_key_id": "k1"}
    cli.json("connections", "add", "google", "--service-account-file", "-", input=json.dumps(file))
    rotate = ("connections", "rotate-secret", "google", "--name", "private_key", "--file", "-")
    refused = cli.json(*rotate, input=pem(number=2), code=1)
    assert "--key-id" in refused["message"]
    other = file | {"client_email": "other@p.example"}
    assert "another service account" in cli.json(*rotate, input=json.dumps(other), code=1)["message"]
    assert "key id" in cli.json(*rotate, "--key-id", "", input=pem(number=2), code=1)["message"]
    assert "named k1 already" in cli.json(*rotate, "--key-id", "k1", input=pem(number=2), code=1)["message"]
    made = cli.json(*rotate, input=json.dumps(file | {"private_key": pem(number=2), "private_key_id": "k2"}))
    add = ("connections", "add-secret", "google", "--name", "private_key", "--file", "-")
    assert "named k2 already" in cli.json(*add, "--key-id", "k2", input=pem(number=3), code=1)["message"]
    secrets = cli.json("connections", "show", "google")["secrets"]
    assert {one["id"]: one["key_id"] for one in secrets} == {made["former"][0]: None, made["id"]: "k2"}
    assert "sign by that as before: k2" in cli("connections", "set", "google", "--config", "key_id=k1b").output
    cli.json("connections", "retire-secret", made["former"][0], "--yes")
    assert "--key-id" in cli.json(*rotate, input=pem(number=3), code=1)["message"]
    assert cli.json(*rotate, "--key-id", "k3", input=pem(number=3))["former"] == [made["id"]]


def test_a_service_accounts_file_for_what_acts_by_none_is_told_from_another_accounts(cli: Cli) -> None:
    cli.json("connections", "add", "google", "--client-id", "c", "--client-secret-file", "-", input="s")
    file = {"private_key": pem(), "client_email": "r@p.example", "private_key_id": "k1"}
    add = ("connections", "add-secret", "google", "--name", "private_key", "--file", "-")
    assert "but google uses none" in cli.json(*add, input=json.dumps(file), code=1)["message"]


def test_services_get_narrowed_and_rotating_credentials(github: Cli, tmp_path: Path) -> None:
    github.json("connections", "rotate-secret", "github", "--name", "private_key", "--file", "-", input=pem())
    made = github.json(
        "accounts", "add-installation", "--tenant", "acme", "--connection", "github", "--installation", "9001",
        "--permissions", "issues:write", "--repositories", "web,api",
    )  # fmt: skip
    shown = github.json("accounts", "show", made["id"])
    assert (shown["resources"], shown["scopes"]) == (["web", "api"], ["issues:write"])
    with Installation(load(data_dir=github.data_dir)) as at:
        assert at.read(lambda c: c.execute(select(grants.c.ceiling)).scalar_one()) == ["issues:write"]
    install = ("accounts", "add-installation", "--tenant", "acme", "--connection", "github", "--installation", "9001")
    assert "names none" in github.json(*install, "--repositories", "", code=1)["message"]
    with_owner = github.json(*install, "--repositories", "web,acme/shop", code=1)["message"]
    assert with_owner == "--repositories takes names without their owner: shop, not acme/shop"
    for unreadable in ("", "issues"):  # they would be no bound at all
        assert "issues:write" in github.json(*install, "--permissions", unreadable, code=1)["message"]
    refresh = tmp_path / "refresh"
    refresh.write_text("xoxe-1-refresh")
    github.json("connections", "add", "slack", "--client-id", "1.2")
    made = github.json(
        "accounts", "add-rotating", "--tenant", "acme", "--connection", "slack", "--token-file", "-",
        "--refresh-token-file", str(refresh), input="xoxe.xoxb-1\n",
    )  # fmt: skip
    assert made["credential"] == Credential.ROTATING
    refused = github.json("accounts", "add-jwt-bearer", "--tenant", "acme", "--connection", "github", code=1)
    assert "no JWT bearer grant" in refused["message"]


class Ahead(Installation):
    """On a machine whose clock is an hour ahead of the database's."""

    def now(self) -> datetime:
        return super().now() + timedelta(hours=1)


def test_what_is_retired_ends_at_once_whatever_time_it_is_where_the_operator_sits(
    github: Cli, secret: str, tmp_path: Path
) -> None:
    github.json("connections", "add-secret", "github", "--name", WEBHOOK_SECRET, "--file", secret)
    with Ahead(load(data_dir=github.data_dir)) as at:

        def live() -> list[str]:
            return [one.id for one in at.read(lambda c: live_secrets(c, "github", WEBHOOK_SECRET))]

        (first,) = live()
        new, words = tmp_path / "new", {"file": None, "overlap": 0.0, "yes": True}
        vars(rotate_webhook_secret.callback)["__wrapped__"](
            at, Output(as_json=True), id="github", generate=new, **words
        )
        (second,) = live()
        assert first != second
        for _ in range(2):
            vars(retire.callback)["__wrapped__"](at, Output(as_json=True), secret_id=second, yes=True)
            assert live() == []
    assert len(github.json("audit", "search", "--kind", "connection.secret_retired")) == 1


def test_a_secret_is_followed_by_a_new_one_with_both_live(github: Cli) -> None:
    rotate = ("connections", "rotate-secret", "github", "--file", "-")
    made = github.json(*rotate, "--switch-at", "+36h", "--retire-at", "+14d", input="correct horse\n")
    (former,) = made["former"]
    assert datetime.fromisoformat(made["used_from"]) > datetime.now(UTC) + timedelta(hours=35)
    assert [one["id"] for one in github.json("connections", "show", "github")["secrets"]] == [former, made["id"]]
    with Installation(load(data_dir=github.data_dir)) as at:
        live = at.read(lambda c: live_secrets(c, "github", CLIENT_SECRET))
        assert [one.open(at.vault).reveal() for one in live] == ["hunter2-hunter2", "correct horse"]
    (row,) = github.json("audit", "search", "--kind", "connection.secret_rotated")
    assert (row["detail"]["new"], row["detail"]["old"]) == (made["id"], [former])
    again = github.json(*rotate, input="another\n", code=1)
    assert "retire-secret" in again["message"]
    github.json("connections", "retire-secret", former, "--yes")
    (row,) = github.json("audit", "search", "--kind", "connection.secret_retired")
    assert (row["detail"]["secret"], row["reason"].startswith("by cli:")) == (former, True)
    assert github.json(*rotate, input="another\n")["former"] == [made["id"]]
    printed = github("connections", "show", "github").output + github("audit", "search", "--json").output
    assert not any(word in printed for word in ("hunter2", "correct horse", "another\n"))


@pytest.mark.parametrize("given", [pem(), json.dumps({"private_key": pem()})], ids=["key", "file of an account"])
def test_a_private_key_is_not_kept_to_be_shown_as_the_client_secret(github: Cli, given: str) -> None:
    refused = github.json("connections", "rotate-secret", "github", "--file", "-", input=given, code=1)
    assert (refused["error"], "store it as private_key" in refused["message"]) == ("BadInput", True)
    named = ("--name", "client_secret")
    assert github.json("connections", "add-secret", "github", *named, "--file", "-", input=given, code=1) == refused
    add = ("connections", "add", "linear", "--client-id", "c", "--client-secret-file", "-")
    assert github.json(*add, input=given, code=1) == refused
    with Installation(load(data_dir=github.data_dir)) as at:
        (kept,) = at.read(lambda c: live_secrets(c, "github", CLIENT_SECRET))
        assert kept.open(at.vault).reveal() == "hunter2-hunter2"


def test_a_client_secret_is_not_kept_to_sign_as_the_private_key(github: Cli) -> None:
    for act in ("rotate-secret", "add-secret"):
        named = ("connections", act, "github", "--name", "private_key", "--file", "-")
        assert "is not an unencrypted RSA" in github.json(*named, input="hunter3\n", code=1)["message"]
    assert [one["name"] for one in github.json("connections", "show", "github")["secrets"]] == [CLIENT_SECRET]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--switch-at", "tomorrow"), 2),
        (("--switch-at", "2026-12-01T08:00"), 2),  # no zone
        (("--switch-at", "+2d", "--retire-at", "+1d"), 1),
    ],
)
def test_a_time_that_makes_no_sense_is_refused(github: Cli, options: tuple[str, ...], code: int) -> None:
    refused = github("connections", "rotate-secret", "github", "--file", "-", *options, input="new\n")
    assert refused.exit_code == code
    with Installation(load(data_dir=github.data_dir)) as at:
        assert len(at.read(lambda c: live_secrets(c, "github", CLIENT_SECRET))) == 1
        assert at.read(lambda c: get_connection(c, "github")).client_id == "Iv1"


def test_a_connection_whose_client_was_refused_is_used_again_once_an_operator_says_so(github: Cli) -> None:
    why = "its token endpoint refused the client (invalid_client)"
    with Installation(load(data_dir=github.data_dir)) as at:
        (refused,) = at.read(lambda c: live_secrets(c, "github", CLIENT_SECRET))
        at.write(lambda c: pause_connection(c, "github", reason=why))
        at.write(lambda c: refuse_secret(c, refused.id, at=at.now()))
    assert f"paused because {why}: `aswhom connections resume github`" in github("connections", "show", "github").output
    assert github.json("connections", "resume", "github") == {"id": "github"}
    shown = github.json("connections", "show", "github")
    assert (shown["paused_reason"], [secret["refused_at"] for secret in shown["secrets"]]) == (None, [None])
    assert github.json("connections", "resume", "gitlab", code=1)["error"] == "BadInput"


def test_what_is_in_use_already_is_said_to_be_and_what_was_asked_before_pauses_it_no_more(github: Cli) -> None:
    """Whoever stored a new secret has resumed it by that, and may say `resume` all the same."""
    with Installation(load(data_dir=github.data_dir)) as at:
        at.write(lambda c: pause_connection(c, "github", reason="invalid_client"))
    github("connections", "rotate-secret", "github", "--file", "-", input="new\n")
    assert github("connections", "resume", "github").output == "github is in use already\n"
    assert github.json("connections", "resume", "github") == {"id": "github"}
    rows = github.json("audit", "search", "--kind", "connection.resumed")
    assert [row["detail"]["was_paused"] for row in rows] == [False, False]
    with Installation(load(data_dir=github.data_dir)) as at:
        assert at.write(lambda c: was_changed(c, get_connection(c, "github"), asked=1))


def test_a_misspelt_setting_is_refused_and_those_there_are_are_named(cli: Cli) -> None:
    def refused(provider: str, config: str) -> str:
        said = cli.json("connections", "add", provider, "--client-id", "c", "--config", config, code=1)["message"]
        return str(said)

    assert refused("github", "appid=1").startswith("GitHub has no setting appid: it takes app_id, ")
    assert "Linear has no setting app_id: it takes " in refused("linear", "app_id=1")
    assert "row says that" in refused("github", "rotates=false")
    assert "late_hours is a whole number from 0 to 71" in refused("linear", "late_hours=72")
    assert "GitHub has no setting late_hours" in refused("github", "late_hours=1")


def test_an_installation_wants_what_its_app_signs_by(cli: Cli) -> None:
    add = ("accounts", "add-installation", "--tenant", "acme", "--installation", "42", "--connection")
    cli.json("tenants", "add", "acme")
    cli.json("connections", "add", "github", "--id", "bare", "--tenant", "acme")
    refused = cli.json(*add, "bare", code=1)["message"]
    for missing in (
        "`aswhom connections set bare --config app_id=ID`",
        "`aswhom connections rotate-secret bare --name private_key --file FILE`",
    ):
        assert missing in refused
    cli.json("connections", "set", "bare", "--config", "app_id=7")
    cli.json("connections", "rotate-secret", "bare", "--name", "private_key", "--file", "-", input=pem())
    assert cli.json(*add, "bare")["credential"] == Credential.INSTALLATION
    cli.json("connections", "add", "slack", "--client-id", "c")
    assert "Slack gives no tokens for installations" in cli.json(*add, "slack", code=1)["message"]


def test_no_link_is_made_through_a_connection_that_cannot_exchange_a_code(cli: Cli, secret: str) -> None:
    link = ("connect", "link", "--tenant", "acme", "--user", "ada", "--connection")
    cli.json("tenants", "add", "acme")
    cli.json("connections", "add", "linear", "--id", "bare")
    assert "`aswhom connections set bare --client-id ID`" in cli.json(*link, "bare", code=1)["message"]
    cli.json("connections", "set", "bare", "--client-id", "c")
    lacks = "bare has no client secret: `aswhom connections rotate-secret bare --name client_secret --file FILE`"
    assert lacks in cli.json(*link, "bare", code=1)["message"]
    cli.json("connections", "rotate-secret", "bare", "--file", secret)
    assert cli.json(*link, "bare")["principal"] == "acme.ada"
    given = ("--api-url", "https://api.example", "--token-url", "https://api.example/token")
    cli.json("connections", "add", "oauth2", "--client-id", "c", "--client-secret-file", secret, *given)
    assert "oauth2 has no authorization endpoint" in cli.json(*link, "oauth2", code=1)["message"]
    assert "`aswhom connections list` shows those there are" in cli.json(*link, "githb", code=1)["message"]


def test_nobody_is_told_where_people_come_back_to_who_cannot_connect_there(cli: Cli, secret: str) -> None:
    assert cli("connections", "add", "stripe").output == "provider connection stripe\n"
    key = {"private_key": pem(), "private_key_id": "k1", "client_email": "robot@p.example"}
    google = cli("connections", "add", "google", "--service-account-file", "-", input=json.dumps(key))
    assert google.output == "provider connection google\n"
    told = cli("connections", "add", "github", "--client-id", "c", "--webhook-secret-file", secret).output
    assert "/webhooks/github/github\n" in told
    assert "people back to   nowhere: github has no client secret: `aswhom connections rotate-secret github" in told
