"""A policy file on the command line: read, tried out, put into force, and told of afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.conftest import Cli

TEXT = """format = 1

[[rule]]
name = "comments as us"
when = { action = "github.Comment" }
require = "service"

[[rule]]
name = "four eyes"
when = { action = "linear.CreateIssue" }
approval = { approvers = ["bob"] }
"""


@pytest.fixture
def file(cli: Cli, tmp_path: Path) -> str:
    """Tenant acme, its user bob, and a policy file for it."""
    cli.json("tenants", "add", "acme")
    cli.json("aliases", "add", "--tenant", "acme", "--user", "bob", "--provider", "github", "--external-id", "7")
    path = tmp_path / "acme.toml"
    path.write_text(TEXT)
    return str(path)


def test_a_policy_is_checked_put_into_force_shown_and_superseded(cli: Cli, file: str) -> None:
    assert cli.json("policy", "check", "acme", file)["unknown"] == []
    assert "no policy of its own" in cli("policy", "show", "acme").output
    assert cli("policy", "apply", "acme", file).exit_code == 2  # it asks first
    assert cli.json("policy", "apply", "acme", file, "--over", "0", "--yes")["version"] == 1
    assert cli.json("policy", "apply", "acme", file, "--yes")["changed"] is False
    assert cli("policy", "show", "acme").output == TEXT
    empty = cli.json("policy", "apply", "acme", "-", "--yes", input="format = 1\n")
    assert (empty["version"], empty["changed"]) == (2, True)
    assert (
        "at policy version 2, not 1"
        in cli.json("policy", "apply", "acme", file, "--over", "1", "--yes", code=1)["message"]
    )
    assert [row["version"] for row in cli.json("policy", "history", "acme")] == [2, 1]
    assert cli.json("policy", "show", "acme", "--version", "1")["document"] == TEXT
    assert "no policy version 9" in cli.json("policy", "show", "acme", "--version", "9", code=1)["message"]


def test_a_misspelt_name_or_an_unknown_approver_is_found_and_not_put_into_force(cli: Cli, file: str) -> None:
    wrong = TEXT.replace("github.Comment", "github.Coment").replace('"bob"', '"bbo"')
    told = cli.json("policy", "check", "acme", "-", input=wrong, code=1)["unknown"]
    assert told == [
        "comments as us: no action is named github.Coment",
        "four eyes: the approver bbo is no user of tenant acme",
    ]
    assert (
        "names what is not there" in cli.json("policy", "apply", "acme", "-", "--yes", input=wrong, code=1)["message"]
    )
    assert cli.json("policy", "history", "acme") == []
    assert "not TOML" in cli.json("policy", "check", "acme", "-", input="[[", code=1)["message"]
    assert "no tenant nobody" in cli.json("policy", "check", "nobody", file, code=1)["message"]


def test_a_diff_tells_lines_and_the_declared_steps_that_are_decided_otherwise(cli: Cli, file: str) -> None:
    told = cli.json("policy", "diff", "acme", file)
    assert '+require = "service"' in told["lines"]
    changes = {(one["workflow"], one["action"]): one for one in told["changes"]}
    comment = changes["link_pull_request", "github.Comment"]
    assert comment["before"] == "as user, delegated"
    assert comment["after"] == ("refused: the policy's rule 'comments as us' lets github.Comment run as service alone")
    issue = changes["link_pull_request", "linear.CreateIssue"]
    assert issue["after"].endswith(", approved by 1 of bob")
    assert cli.json("policy", "simulate", "acme", file)["asked"] == 0
    assert "0 of 0 step(s) of the last 7 day(s)" in cli("policy", "simulate", "acme", file).output


def test_the_risk_table_is_made_from_the_declarations(cli: Cli, file: str) -> None:
    lines = cli.json("policy", "risk", "--workflow", "link_pull_request")
    assert [line["property"] for line in lines] == [
        "user attribution",
        "blast radius",
        "token life-cycle overhead",
        "consent revocation",
        "tenant isolation",
        "operational simplicity",
    ]
    assert {line["pattern"] for line in lines} == {"hybrid"}
    attribution = lines[0]
    assert attribution["grade"] == "high, contextual"
    assert "github.Comment as the user" in attribution["because"]["delegated"]
    assert "slack.PostMessage as the service" in attribution["because"]["service"]
    assert "chat:write" in lines[1]["because"]["service"]
    assert cli.json("policy", "risk", "--tenant", "acme") == []  # nothing is switched on
    cli.json("workflows", "enable", "update_opportunity", "--tenant", "acme")
    assert {line["pattern"] for line in cli.json("policy", "risk", "--tenant", "acme")} == {"delegated"}
    ours = 'format = 1\n[[rule]]\nname = "x"\nwhen = { action = "salesforce.*" }\nrequire = "service"\n'
    cli.json("policy", "apply", "acme", "-", "--yes", input=ours)
    assert cli.json("policy", "risk", "--tenant", "acme") == []  # nobody may any more


def test_the_schema_of_the_file_is_printed_for_editors(cli: Cli) -> None:
    assert set(cli.json("policy", "schema")["properties"]) == {"format", "rule", "allow"}
