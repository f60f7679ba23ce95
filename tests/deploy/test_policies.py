"""A policy file on the command line: read, tried out, put into force, and told of afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from identity.model import AccessPattern
from identity.policy.rules import TriggerKind
from pipeline.authoring.registry import Registry
from pipeline.policy import risk
from pipeline.policy.risk import Property
from pipeline.policy.trial import declared_cases
from tests.deploy.conftest import Cli
from tests.ledger.undoing import say_and_undo

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
BOUNDED = """format = 1
[[allow]]
name = "invoices"
when = { action = "invoices.PayInvoice" }
limit = "50000 EUR"
[[rule]]
name = "four eyes over 1,000"
when = { action = "invoices.PayInvoice" }
above = "1000 EUR"
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
    misspelt, nobody = told
    assert misspelt == "comments as us: no action is named github.Coment"
    assert nobody.startswith("four eyes: the approver bbo is no user of tenant acme: ")
    assert "`aswhom aliases add --tenant acme --user bbo`" in nobody
    assert (
        "contains names that do not exist"
        in cli.json("policy", "apply", "acme", "-", "--yes", input=wrong, code=1)["message"]
    )
    assert cli.json("policy", "history", "acme") == []
    assert "not TOML" in cli.json("policy", "check", "acme", "-", input="[[", code=1)["message"]
    assert "no tenant nobody" in cli.json("policy", "check", "nobody", file, code=1)["message"]


def test_a_quorum_of_two_that_names_one_person_twice_is_not_put_into_force(cli: Cli, file: str) -> None:
    twice = Path(file).read_text().replace('["bob"]', '["bob", "acme.bob"], quorum = 2')
    (told,) = cli.json("policy", "check", "acme", "-", input=twice, code=1)["unknown"]
    assert told == (
        "four eyes: a quorum of 2 needs as many approvers, and acme.bob, bob are 1 user(s): "
        "an id and a name may mean the same person"
    )
    assert told in cli.json("policy", "apply", "acme", "-", "--yes", input=twice, code=1)["message"]


def test_a_rule_that_needs_all_whom_it_names_is_told_of(cli: Cli, file: str) -> None:
    (told,) = cli.json("policy", "check", "acme", file)["quorums"]
    assert told == (
        "four eyes: its quorum is everybody it names (bob), and whoever asks may not approve, "
        "so a step that one of them asks for is refused: name one more"
    )
    assert told in cli("policy", "check", "acme", file).output
    cli.json("aliases", "add", "--tenant", "acme", "--user", "carol", "--provider", "github", "--external-id", "8")
    spare = Path(file).read_text().replace('["bob"]', '["bob", "carol"]')
    assert cli.json("policy", "check", "acme", "-", input=spare)["quorums"] == []


def test_a_rule_about_compensations_needs_two_people_to_spare(cli: Cli, file: str) -> None:
    for n, name in enumerate(("carol", "dave"), 8):
        cli.json("aliases", "add", "--tenant", "acme", "--user", name, "--provider", "github", "--external-id", str(n))
    undoing = Path(file).read_text().replace('action = "linear.CreateIssue"', 'workflow = "*.compensation"')
    spare = undoing.replace('["bob"]', '["bob", "carol", "dave"]')
    assert cli.json("policy", "check", "acme", "-", input=spare)["quorums"] == []
    neither = "neither the person who asked for a job nor the person who revoked may approve its compensation, so it is"
    for named, refused in (
        ('["bob"]', "refused if either is among them: name 2 more"),
        ('["bob", "carol"]', "refused if both are among them: name 1 more"),
    ):
        text = undoing.replace('["bob"]', named)
        (told,) = cli.json("policy", "check", "acme", "-", input=text)["quorums"]
        assert told.endswith(f"{neither} {refused}")


def test_a_rule_about_everything_without_a_spare_is_told_of_for_compensations_and_for_all_else(
    cli: Cli, file: str
) -> None:
    text = Path(file).read_text().replace('action = "linear.CreateIssue"', 'agent = "*"')
    undone, asked = cli.json("policy", "check", "acme", "-", input=text)["quorums"]
    assert undone.endswith("refused if either is among them: name 2 more")
    assert asked.endswith("so a step that one of them asks for is refused: name one more")


def test_a_capability_where_none_is_taken_and_an_amount_where_none_is_stated_are_told_of(cli: Cli, file: str) -> None:
    idle = """format = 1
[[rule]]
name = "leave for each"
when = { action = "github.CreateIssue" }
require = "capability"

[[rule]]
name = "four eyes over 5,000"
when = { action = "salesforce.*" }
above = "5000 EUR"
approval = { approvers = ["bob"] }

[[rule]]
name = "of all, the invoices state one"
max_amount = "5000 EUR"
"""
    told = cli.json("policy", "check", "acme", "-", input=idle)
    (refused,) = told["nobody"]
    assert refused.startswith(
        "leave for each: it wants a capability for github.CreateIssue, whose upstream is not known"
    )
    assert told["amounts"] == [
        "four eyes over 5,000: no action that it is about states an amount, so each counts as more than 5000 EUR"
    ]
    assert told["amounts"][0] in cli("policy", "check", "acme", "-", input=idle).output


def test_a_rule_that_leaves_an_action_nobody_is_told_of_and_may_be_meant(cli: Cli, file: str) -> None:
    told = cli.json("policy", "check", "acme", file)["nobody"]
    assert told == [
        "comments as us: nobody may do github.Comment any more, which must be attributable to a person",
    ]
    assert told[0] in cli("policy", "check", "acme", file).output
    ours = """format = 1
[[rule]]
name = "issues are ours"
when = { action = "linear.CreateIssue" }
require = "service"
"""
    told = cli.json("policy", "check", "acme", "-", input=ours)["nobody"]
    assert told == [
        "issues are ours: nobody may do linear.CreateIssue in file_from_slack any more, which declares user for it"
    ]
    ours = ours.replace("when = {", 'when = { workflow = "link_pull_request",')
    assert cli.json("policy", "check", "acme", "-", input=ours)["nobody"] == []


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


def test_compensations_are_tried_and_can_be_named() -> None:
    workflows = Registry([say_and_undo])
    tried = {case.question.workflow for case in declared_cases(workflows.with_compensations)}
    assert tried == {say_and_undo.name, f"{say_and_undo.name}.compensation"}


def test_a_policy_may_be_about_compensations_and_a_risk_table_has_them(cli: Cli, file: str, tmp_path: Path) -> None:
    about = tmp_path / "undo.toml"
    about.write_text(
        'format = 1\n[[rule]]\nname = "undo"\nrequire = "user"\n'
        'when = { workflow = "*.compensation", agent = "aswhom" }\n'
    )
    refused = cli("policy", "check", "acme", str(about)).output
    assert "no workflow is named" not in refused
    assert "undo: nobody may do" in refused
    assert {row["workflow"] for row in cli.json("policy", "risk")} > {"link_pull_request.compensation"}


def test_a_workflow_that_names_no_sender_is_tried_as_background_work_alone() -> None:
    workflows = Registry.load(["tasks.billing_reconciliation", "tasks.devops_assistant"])
    tried = {(case.question.workflow, case.question.trigger) for case in declared_cases(workflows)}
    assert ("billing_reconciliation", TriggerKind.BACKGROUND) in tried
    by_a_person = {name for name, trigger in tried if trigger is TriggerKind.PERSON}
    assert by_a_person == {one.name for one in workflows if one.triggered_by is not None}


def test_a_diff_counts_the_tools_of_api_keys_which_no_workflow_declares(cli: Cli, file: str) -> None:
    before = cli.json("policy", "diff", "acme", file)
    cli.json("api-keys", "add", "--tenant", "acme", "--agent", "support-bot", "--tools", "github.*")
    cli.json("api-keys", "add", "--tenant", "acme", "--agent", "reports", "--role", "reader")
    told = cli.json("policy", "diff", "acme", file)
    (new,) = (one for one in told["changes"] if one not in before["changes"])
    assert (new["workflow"], new["steps"], new["example"]) == (
        "tool:github.Comment:user",
        1,
        "acme.support-bot as user",
    )
    rule = '[[rule]]\nname = "theirs"\nwhen = { agent = "acme.support-bot" }\nrequire = "service"\n'
    told = cli.json("policy", "diff", "acme", "-", input=f"format = 1\n{rule}")
    assert {one["example"] for one in told["changes"]} == {"acme.support-bot as user"}


def test_a_policy_names_an_agent_of_the_api_in_full_and_is_told_so(cli: Cli, file: str) -> None:
    cli.json("api-keys", "add", "--tenant", "acme", "--agent", "support-bot")
    text = Path(file).read_text().replace('action = "github.Comment"', 'agent = "support-bot"')
    refused = cli("policy", "check", "acme", "-", input=text)
    assert "no agent is named support-bot, but acme.support-bot is" in refused.output
    assert "1 name(s) match nothing or too few people, so `aswhom policy apply` refuses it" in refused.output
    assert "can be used" not in refused.output
    full = text.replace("support-bot", "acme.support-bot")
    assert cli.json("policy", "check", "acme", "-", input=full)["unknown"] == []


@pytest.mark.usefixtures("file")
def test_a_diff_tells_how_a_step_whose_amount_nobody_knows_yet_is_decided_by_amount(cli: Cli) -> None:
    text = """format = 1
[[allow]]
name = "invoices"
when = { action = "invoices.PayInvoice" }
limit = "50000 EUR"
"""
    four_eyes = """[[rule]]
name = "four eyes over 5,000"
when = { action = "invoices.*" }
above = "5000 EUR"
approval = { approvers = ["bob"] }
"""
    (change,) = _changes(cli, text)
    assert change["before"].startswith("refused: invoices.PayInvoice is high-risk, and no [[allow]]")
    allowed, more = change["after"].split("; ")
    assert allowed == "up to 50000 EUR: as user, capability"
    assert more.startswith("for more: refused: invoices.PayInvoice is high-risk and allowed up to 50000 EUR, and this")
    (change,) = _changes(cli, text + four_eyes)
    assert change["after"].split("; ")[:2] == [
        "up to 5000 EUR: as user, capability",
        "up to 50000 EUR: as user, capability, approved by 1 of bob",
    ]


def _changes(cli: Cli, text: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = cli.json("policy", "diff", "acme", "-", input=text)["changes"]
    return [one for one in found if one["action"] == "invoices.PayInvoice"]


@pytest.mark.usefixtures("file")
def test_the_risk_table_is_made_from_the_declarations(cli: Cli) -> None:
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
    assert "github.Comment as the user" in attribution["patterns"]["delegated"]
    assert "slack.PostMessage as the service" in attribution["patterns"]["service"]
    assert attribution["patterns"]["hybrid"] == "high, contextual: delegated and service"
    assert attribution["patterns"]["capability"] is None
    assert "chat:write" in lines[1]["patterns"]["service"]
    assert cli.json("policy", "risk", "--tenant", "acme") == []  # nothing is switched on
    cli.json("workflows", "enable", "update_opportunity", "--tenant", "acme")
    assert {line["pattern"] for line in cli.json("policy", "risk", "--tenant", "acme")} == {"delegated"}
    ours = 'format = 1\n[[rule]]\nname = "x"\nwhen = { action = "salesforce.*" }\nrequire = "service"\n'
    cli.json("policy", "apply", "acme", "-", "--yes", input=ours)
    assert cli.json("policy", "risk", "--tenant", "acme") == []  # nobody may any more


# The grades that the patterns are known by (docs/policy.md): delegated, service, hybrid, capability.
GRADES = {
    Property.ATTRIBUTION: ("high, per user", "low, system", "high, contextual", "high, per action"),
    Property.BLAST_RADIUS: ("low, one user", "high, central", "medium, bounded by context", "very low"),
    Property.LIFE_CYCLE: (
        "high, refresh per user",
        "low, one rotating credential",
        "medium",
        "medium, short-lived issuance",
    ),
    Property.REVOCATION: (
        "granular, per user",
        "coarse, everything",
        "granular for user-bound actions",
        "granular, per action",
    ),
    Property.ISOLATION: ("strong", "moderate", "strong", "strong"),
    Property.SIMPLICITY: ("moderate", "high", "moderate", "moderate"),
}


@pytest.mark.parametrize("graded", Property)
def test_each_pattern_is_graded_as_it_is_known(graded: Property) -> None:
    patterns = (AccessPattern.DELEGATED, AccessPattern.SERVICE, AccessPattern.HYBRID, AccessPattern.CAPABILITY)
    assert risk.GRADES.keys() == GRADES.keys()
    for pattern, known in zip(patterns, GRADES[graded], strict=True):
        grade = risk.GRADES[graded][pattern]
        assert known == grade or known.startswith(f"{grade}, "), f"{graded}, {pattern}"


@pytest.mark.parametrize(
    ("workflow", "pattern", "reach"),
    [
        ("update_opportunity", "delegated", "what one person may at salesforce (api)"),
        ("answer_mention", "service", "what the tenant's service may at slack (chat:write)"),
        ("pay_invoice", "capability", "one action on one resource at invoices"),
    ],
)
def test_a_workflow_of_one_pattern_has_its_grades_and_no_other(
    cli: Cli, workflow: str, pattern: str, reach: str
) -> None:
    lines = cli.json("policy", "risk", "--workflow", workflow)
    assert [line["pattern"] for line in lines] == [pattern] * 6
    for line in lines:
        grade = risk.GRADES[Property(line["property"])][AccessPattern(pattern)]
        assert line["grade"] == grade
        assert list(line["patterns"]) == list(AccessPattern)
        assert [name for name, cell in line["patterns"].items() if cell] == [pattern]
        assert line["patterns"][pattern].startswith(f"{grade}: ")
    assert lines[1]["patterns"][pattern].endswith(f": {reach}")


def test_all_four_patterns_have_a_column_and_the_unused_a_dash(cli: Cli) -> None:
    head, _, *lines = cli("policy", "risk", "--workflow", "update_opportunity").output.splitlines()
    assert head.split() == ["workflow", "property", "delegated", "service", "hybrid", "capability"]
    (first,) = [line for line in lines if "user attribution" in line]
    assert first.split()[-3:] == ["—"] * 3


@pytest.mark.usefixtures("file")
def test_limits_and_approvals_stand_beside_the_grade_and_do_not_move_it(cli: Cli) -> None:
    cli.json("workflows", "enable", "pay_invoice", "--tenant", "acme")
    cli.json("policy", "apply", "acme", "-", "--yes", input=BOUNDED)
    assert cli.json("policy", "risk", "--tenant", "acme")[1]["patterns"]["capability"] == (
        "very low: one action on one resource at invoices; "
        "invoices.PayInvoice approved by 1 of bob above 1000 EUR; invoices.PayInvoice up to 50000 EUR"
    )


def test_an_installation_token_for_one_repository_is_named(cli: Cli) -> None:
    reach = cli.json("policy", "risk", "--workflow", "link_pull_request")[1]["patterns"]
    assert "in one repository at a time for github.GetPull" in reach["service"]
    assert "in one repository at a time" not in reach["delegated"]


def test_the_schema_of_the_file_is_printed_for_editors(cli: Cli) -> None:
    assert set(cli.json("policy", "schema")["properties"]) == {"format", "rule", "allow"}
