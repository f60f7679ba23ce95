"""Provider connections that were added wrongly: corrected, or removed, and what is asked before."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from deploy.installation import Installation
from deploy.settings import load
from identity.connections.registry import connection_for, get_connection, pause_connection, was_changed
from identity.tables import connection_secrets
from tests.deploy.conftest import Cli
from tests.identity.keys import pem

ADD = ("connections", "add", "github", "--client-id", "Iv1", "--client-secret-file", "-")
SET = ("connections", "set", "github")
SERVICE = ("--tenant", "acme", "--connection", "github")
REMOVE = ("connections", "remove", "github", "--yes")


@pytest.fixture
def github(cli: Cli) -> Cli:
    cli.json("tenants", "add", "acme")
    cli.json(*ADD, "--scopes", "issues:raed", "--config", "app_id=1", input="hunter2")
    return cli


def test_what_was_given_wrongly_is_corrected_at_once(github: Cli) -> None:
    right = (
        "--scopes",
        "issues:read,issues:write",
        "--config",
        "app_id=123456",
    )
    assert github.json(*SET, *right) == {"id": "github", "changed": ["config.app_id", "scopes"]}
    shown = github.json("connections", "show", "github")
    assert shown["scopes"] == ["issues:read", "issues:write"]
    assert shown["config"] == {"app_id": "123456"}
    assert shown["client_id"] == "Iv1"
    (row,) = github.json("audit", "search", "--kind", "connection.changed")
    assert row["detail"]["changed"] == ["config.app_id", "scopes"]
    assert row["reason"].startswith("by cli:")
    assert github.json(*SET, *right)["changed"] == []  # nothing was done
    assert len(github.json("audit", "search", "--kind", "connection.changed")) == 1


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("--config", "userinfo_url=https://x.example"), "says where tokens go"),
        (("--config", "issuer=https://x.example"), "Remove github while nothing refers to it"),
        (("--config", "client_auth=handshake"), "authenticates by"),
        (("--config", "key_header=a b"), "key_header is not the name of a header"),
        (("--config", "people=ghe"), "aswhom connections name-people github"),
        ((), "say what to change"),
    ],
)
def test_it_is_held_to_what_a_new_one_is(github: Cli, given: tuple[str, ...], why: str) -> None:
    before = github.json("connections", "show", "github")
    assert why in github.json(*SET, *given, code=1)["message"]
    assert github.json("connections", "show", "github") == before


def test_the_client_stays_once_there_is_an_account_for_it_alone_can_end_what_it_won(github: Cli) -> None:
    told = github(*SET, "--client-id", "Iv2").output  # nobody has an account
    assert "rotate-secret github --name client_secret --file FILE --retire-at +1d`" in told
    assert github.json("connections", "show", "github")["client_id"] == "Iv2"
    github.json("accounts", "add-static", *SERVICE, "--token-file", "-", input="t0ken")
    github.json("revoke", "account", "acme/github/acme.service", "--yes")  # its token may still be to end there
    for given in (("--client-id", "Iv3"), ("--config", "app_id=7")):
        assert "has 1 account(s)" in github.json(*SET, *given, code=1)["message"]
    shown = github.json("connections", "show", "github")
    assert (shown["client_id"], shown["config"]) == ("Iv2", {"app_id": "1"})
    assert github(*SET, "--scopes", "issues:read").output == "github: changed scopes\n"


def test_a_connection_paused_for_a_wrong_client_is_used_again_when_it_is_corrected(github: Cli) -> None:
    with Installation(load(data_dir=github.data_dir)) as at:
        at.write(lambda c: pause_connection(c, "github", reason="its client was refused"))
        github.json(*SET, "--scopes", "a")
        assert github.json("connections", "show", "github")["paused_reason"] is not None
        github.json(*SET, "--client-id", "Iv2")
        assert github.json("connections", "show", "github")["paused_reason"] is None
        github.json(*SET, "--client-id", "Iv3")
        now = at.read(lambda c: get_connection(c, "github"))
        assert at.write(lambda c: was_changed(c, now, asked=1)), "a refusal of the old one pauses nothing"


def test_a_connection_that_nothing_refers_to_is_removed_with_its_secrets(github: Cli) -> None:
    github.json(*ADD, "--id", "right", input="hunter2")
    assert github("connections", "remove", "github").exit_code == 2  # it asks
    assert github.json(*REMOVE) == {"id": "github"}
    assert [row["id"] for row in github.json("connections", "list")] == ["right"]
    with Installation(load(data_dir=github.data_dir)) as at:
        assert at.read(lambda c: connection_for(c, "acme", "github")).id == "right"
        left = at.read(lambda c: c.execute(select(connection_secrets.c.connection_id)).scalars().all())
    assert left == ["right"]
    (row,) = github.json("audit", "search", "--kind", "connection.removed")
    assert (row["detail"]["connection"], row["detail"]["client_id"]) == ("github", "Iv1")
    assert "no provider connection github" in github.json(*REMOVE, code=1)["message"]


def test_a_connection_that_anything_refers_to_stays(github: Cli) -> None:
    github.json("installations", "add", "github", "42", "acme")
    github.json("connections", "rotate-secret", "github", "--name", "private_key", "--file", "-", input=pem())
    github.json("accounts", "add-installation", *SERVICE, "--installation", "42")
    why = github.json(*REMOVE, code=1)["message"]
    assert ("accounts (1)" in why, "installations (1)" in why) == (True, True)
    assert "aswhom connections set github" in why
    assert github.json("connections", "show", "github")["secrets"] != []


def test_a_connection_whose_name_links_people_stays(github: Cli) -> None:
    """Another server's could come under that name later, and be taken for them."""
    link = ("--tenant", "acme", "--user", "ada", "--provider", "github", "--external-id", "7")
    github.json("aliases", "add", *link)
    assert "aswhom aliases list" in github.json(*REMOVE, code=1)["message"]
    github.json("tenants", "add", "globex")
    github.json(*ADD, "--id", "of-globex", "--tenant", "globex", input="hunter2")
    assert "aswhom aliases list" in github.json(*REMOVE, code=1)["message"]  # acme's people are not known through it
    github.json(*ADD, "--id", "right", input="hunter2")
    github.json(*REMOVE)


def test_a_sender_of_ones_own_is_removed_and_added_again(github: Cli) -> None:
    add = ("connections", "add-sender", "standard", "--id", "billing", "--tenant", "acme", "--webhook-secret-file", "-")
    github.json(*add, input="whsec_" + "a2tr" * 8)
    assert "remove it" in github.json("connections", "set", "billing", "--config", "tolerance=60", code=1)["message"]
    github.json("connections", "remove", "billing", "--yes")
    github.json(*add, input="whsec_" + "a2tr" * 8)


@pytest.mark.parametrize("whose", [(), ("--tenant", "acme")], ids=["the platform's", "a tenant's own"])
def test_one_connection_follows_another_whose_accounts_are_kept(cli: Cli, whose: tuple[str, ...]) -> None:
    cli.json("tenants", "add", "acme")
    cli.json(*ADD, *whose, input="hunter2")
    cli.json("accounts", "add-static", *SERVICE, "--token-file", "-", input="t0ken")
    advice = cli.json(*SET, "--client-id", "Iv2", code=1)["message"]
    assert "Add another connection, under another id, then `aswhom connections stop github`" in advice
    added = cli(*ADD[:4], "Iv2", *ADD[5:], "--id", "github-2", *whose, input="hunter2")
    fit = "tenant acme" if whose else "every tenant without one of its own"
    said = f"github and github-2 fit {fit}, so no work for github goes through any, until all but one are stopped"
    assert (added.exit_code, said in added.stderr) == (0, True), added.output
    assert said in findings(cli)[0]
    assert "another one can take its place" in cli.json(*REMOVE, code=1)["message"]
    stopped = cli("connections", "stop", "github", "--yes")
    assert (stopped.exit_code, said in stopped.stderr, findings(cli)) == (0, False, [])
    with Installation(load(data_dir=cli.data_dir)) as at:
        assert at.read(lambda c: connection_for(c, "acme", "github")).id == "github-2"
    assert said in cli("connections", "open", "github").stderr


def test_two_of_the_platforms_are_no_fault_while_every_tenant_has_its_own(cli: Cli) -> None:
    for name in ("github", "github-2"):
        cli.json(*ADD, "--id", name, input="hunter2")
    cli.json("tenants", "add", "acme")
    assert "github and github-2 fit every tenant without one of its own" in findings(cli)[0]
    cli.json(*ADD, "--id", "github-acme", "--tenant", "acme", input="hunter2")
    assert findings(cli) == []


def findings(cli: Cli) -> list[str]:
    """What `doctor` finds wrong with connections."""
    found = cli.json("doctor", "--offline", code=1)["findings"]
    return [one["says"] for one in found if (one["what"], one["state"]) == ("connections", "wrong")]
