"""Whose an installation is, and that it can be taken back where it was given to the wrong tenant."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import create_engine, insert

from identity.connections.installations import note_organization
from pipeline.model import LeftOut
from pipeline.tables import deliveries
from tests.deploy.conftest import Cli, told
from tests.identity.keys import pem

OF = ("github", "42")
REMOVE = ("installations", "remove", *OF, "--yes")


@pytest.fixture
def given(cli: Cli) -> Cli:
    for tenant in ("acme", "globex"):
        cli.json("tenants", "add", tenant)
    cli.json("connections", "add", "github", "--client-id", "Iv1", "--client-secret-file", "-", input="s3cret")
    cli.json("installations", "add", *OF, "globex")
    return cli


def test_an_installation_given_to_the_wrong_tenant_is_taken_back_and_given_to_the_right_one(given: Cli) -> None:
    right = ("installations", "add", *OF, "acme")
    assert "aswhom installations remove github 42" in given.json(*right, code=1)["message"]
    asked = given("installations", "remove", *OF)
    assert (asked.exit_code, "Take installation 42 of github from globex" in asked.output) == (2, True)
    assert given.json(*REMOVE) == {"connection": "github", "external_id": "42", "tenant": "globex"}
    given.json(*right)
    assert [row["tenant_id"] for row in given.json("installations", "list")] == ["acme"]
    (row,) = given.json("audit", "search", "--kind", "installation.removed")
    assert (row["tenant_id"], row["detail"]) == ("globex", {"connection": "github", "external_id": "42"})
    given.json(*REMOVE)
    assert "aswhom installations list" in given.json(*REMOVE, code=1)["message"]


def test_an_installation_that_a_service_acts_through_stays_until_that_is_revoked(given: Cli) -> None:
    service = ("--tenant", "globex", "--connection", "github")
    given.json("connections", "rotate-secret", "github", "--name", "private_key", "--file", "-", input=pem())
    given.json("accounts", "add-installation", *service, "--installation", "42")
    why = given.json(*REMOVE, code=1)["message"]
    assert "aswhom revoke account globex/github/globex.service" in why
    given.json("revoke", "account", "globex/github/globex.service", "--yes")
    given.json(*REMOVE)
    assert given.json("installations", "list") == []


def test_a_second_installation_takes_the_place_of_the_first_only_if_that_is_said(given: Cli) -> None:
    def act_through(installation: str, *more: str, code: int = 0) -> dict[str, Any]:
        add = ("accounts", "add-installation", "--tenant", "globex", "--connection", "github", "--installation")
        said: dict[str, Any] = given.json(*add, installation, *more, code=code)
        return said

    def acts_through() -> str:
        return str(given.json("accounts", "show", "globex/github/globex.service")["external_id"])

    given.json("connections", "rotate-secret", "github", "--name", "private_key", "--file", "-", input=pem())
    act_through("42")
    act_through("42", "--permissions", "issues:write")  # the same place, for less
    why = act_through("43", code=1)["message"]
    assert "globex.service acts through 42 at github" in why
    assert "--replace" in why
    assert acts_through() == "42"
    act_through("43", "--replace")
    assert acts_through() == "43"
    given.json("revoke", "account", "globex/github/globex.service", "--yes")
    act_through("44")  # where it was installed anew, it has a new number
    assert acts_through() == "44"


def test_what_acmes_service_acts_through_at_its_own_app_is_listed_by_that(given: Cli) -> None:
    own = ("--id", "own", "--tenant", "acme", "--client-id", "Iv2", "--client-secret-file", "-")
    given.json("connections", "add", "github", *own, input="s3cret")
    given.json("connections", "rotate-secret", "own", "--name", "private_key", "--file", "-", input=pem())
    for _ in range(2):
        given.json("accounts", "add-installation", "--tenant", "acme", "--connection", "own", "--installation", "77")

    def listed() -> list[tuple[str, str]]:
        return [(row["connection_id"], row["external_id"]) for row in given.json("installations", "list")]

    assert listed() == [OF, ("own", "77")]
    rows = given.json("audit", "search", "--kind", "installation.added")
    assert [row["detail"]["external_id"] for row in rows if row["tenant_id"] == "acme"] == ["77"]
    instead = ("--tenant", "acme", "--connection", "own", "--installation", "78", "--replace")
    assert "installation 77 is no longer listed" in given("accounts", "add-installation", *instead).output
    assert listed() == [OF, ("own", "78")], "by its tokens the deliveries of 77 would not be answered"
    (row,) = given.json("audit", "search", "--kind", "installation.removed")
    assert (row["tenant_id"], row["detail"]["external_id"]) == ("acme", "77")


def test_whoever_lists_the_first_is_told_that_others_are_left_out_from_then_on(given: Cli) -> None:
    for id in ("own", "second"):
        own = ("--id", id, "--tenant", "acme", "--client-id", id, "--client-secret-file", "-")
        given.json("connections", "add", "github", *own, input="s3cret")
        given.json("connections", "rotate-secret", id, "--name", "private_key", "--file", "-", input=pem())
    changes = "from now on own takes what comes through its listed installations alone"
    assert changes in given("installations", "add", "own", "77", "acme").output
    assert changes not in given("installations", "add", "own", "78", "acme").output
    service = ("--tenant", "acme", "--connection", "second", "--installation", "79")
    assert changes.replace("own", "second") in given("accounts", "add-installation", *service).output
    assert "from now on" not in given("installations", "add", "github", "80", "globex").output, "it never took others"


def test_a_tenants_own_app_that_lists_nothing_is_pointed_at(given: Cli) -> None:
    def unlisted() -> list[str]:
        return [says for _, says in told(given, "connections") if "lists no" in says]

    own = ("--id", "linear-acme", "--tenant", "acme", "--client-id", "c", "--webhook-secret-file", "-")
    given.json("connections", "add", "linear", *own, input="lin_wh_secret")
    (says,) = unlisted()
    assert "`aswhom installations add linear-acme ID acme`" in says
    given.json("installations", "add", "linear-acme", "ORG", "acme")
    assert unlisted() == []
    removed = given("installations", "remove", "linear-acme", "ORG", "--yes").output
    (says,) = unlisted()
    assert "lists no workspace or organization any more, so whatever names one is stored as ignored" in says
    for told_of_ends in (removed, says):
        assert "ends acme's accounts, whoever owned it" in told_of_ends


def test_doctor_names_what_was_left_out_and_an_organization_that_is_listed_by_a_workspace(given: Cli) -> None:
    why, unreached = "it is of a place that nobody named", "no tenant has T9"  # in whatever words
    rows = [
        {
            "id": f"del_{number}",
            "source": "github",
            "connection_id": "github",
            "delivery_id": str(number),
            "body_sha256": "0",
            "event": "e",
            "outcome": outcome,
            "reason": reason,
            "left_out": left_out,
            "body": b"",
            "received_at": datetime.now(UTC),
        }
        for number, (outcome, reason, left_out) in enumerate(
            [
                ("ignored", why, LeftOut.UNLISTED),
                ("ignored", why, LeftOut.UNLISTED),
                ("ignored", "unwanted", None),
                ("signal", unreached, LeftOut.UNREACHED),
            ]
        )
    ]
    with create_engine(f"sqlite:///{given.data_dir / 'ledger.db'}").begin() as ledger:
        ledger.execute(insert(deliveries), rows)
        note_organization(ledger, owner="github", workspace="42", organization="E1")
    says = " ".join(says for _, says in told(given, "connections"))
    assert f"2 of the latest deliveries to github came to nothing: {why}" in says
    assert f"1 of the latest deliveries to github came to nothing: {unreached}" in says
    assert "unwanted" not in says
    assert "whole organization E1, and listed by its workspaces 42 alone: `aswhom installations add github E1 g" in says
    given.json("installations", "add", "github", "43", "acme")
    with create_engine(f"sqlite:///{given.data_dir / 'ledger.db'}").begin() as ledger:
        note_organization(ledger, owner="github", workspace="43", organization="E1")
    says = " ".join(says for _, says in told(given, "connections"))
    assert "listed by its workspaces 42, 43 alone: they are of acme and globex, so list each other workspace" in says
    given.json("installations", "add", "github", "E1", "globex")
    assert "E1" not in " ".join(says for _, says in told(given, "connections"))


def test_a_service_moves_to_another_workspace_only_if_that_is_said(given: Cli) -> None:
    given.json("connections", "add", "slack", "--client-id", "1.2")
    add = ("accounts", "add-static", "--tenant", "globex", "--connection", "slack", "--token-file", "-")
    given.json(*add, "--external-id", "T1", input="xoxb-1")
    given.json(*add, input="xoxb-2")  # of the same, as far as is said
    assert "T2 would take its place" in given.json(*add, "--external-id", "T2", input="xoxb-3", code=1)["message"]
    given.json(*add, "--external-id", "T2", "--replace", input="xoxb-3")


def test_of_one_that_a_tenants_own_connection_lists_no_more_it_is_said_what_becomes(given: Cli) -> None:
    own = ("--id", "own", "--tenant", "acme", "--client-id", "Iv2", "--client-secret-file", "-")
    given.json("connections", "add", "github", *own, input="s3cret")
    for one in ("77", "78"):
        given.json("installations", "add", "own", one, "acme")
    then = "deliveries that name it are stored as ignored from now on, and no provider sends them again"
    asked = given("installations", "remove", "own", "77")
    assert f"No longer list installation 77 of own ({then})?" in asked.output
    done = given("installations", "remove", "own", "77", "--yes")
    assert done.output == f"installation 77 of own is no longer listed: {then}\n"
    last = given("installations", "remove", "own", "78", "--yes")
    assert last.output.endswith("so own ignores everything that names an installation until one is\n")
    assert f"{then}; none is listed then" in last.output
