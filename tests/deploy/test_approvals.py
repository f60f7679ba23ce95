"""Approvals on the command line: listed, shown, linked to and answered."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import update

from deploy.cli.policy import answered
from deploy.installation import Installation
from deploy.settings import load
from identity.model import AccountState
from identity.tables import accounts
from pipeline.approvals.tables import approvals
from pipeline.approvals.views import approvals_of_job
from pipeline.jobs.intents import Ended
from pipeline.jobs.moves import move_job
from pipeline.states import JobState
from pipeline.steps.openings import open_attempt
from tests.deploy.conftest import Cli
from tests.ledger.approval_case import SHOWN, ApprovalCase
from tests.ledger.house import AS_ADA, House, intent_of


@pytest.fixture
def approval(cli: Cli) -> str:
    """One that is open, of ada's job; bob and carol may answer."""
    with Installation(load(data_dir=cli.data_dir)) as at:
        house = House(at.ledger)
        house.build()
        case = ApprovalCase(house)
        case.ask(shown=SHOWN)
        return str(case.row.id)


def test_a_step_that_waits_for_its_approval_is_explained(cli: Cli, approval: str) -> None:
    """It has not begun, so it has no row; and its decision is the one that somebody has to judge now."""
    (row,) = cli.json("approvals", "list")
    (answer,) = cli.json("policy", "explain", row["job"], "1")
    assert (answer["step"], answer["action"]) == (1, "github.Say")
    assert answer["decision"] == "as user ada, delegated: not begun yet"
    assert answer["because"][-4:] == [
        AS_ADA.reason,
        "the tenant had no policy of its own",
        "the policy's rule 'four eyes' wants 1 of acme.ada, acme.bob, acme.carol to say yes",
        f"github.Say waits for approval {approval}",
    ]
    assert "step 1, github.Say: as user ada" in cli("policy", "explain", row["job"]).output
    assert "no step 2" in cli.json("policy", "explain", row["job"], "2", code=1)["message"]


def test_who_approved_a_step_is_said_of_its_job(cli: Cli, approval: str) -> None:
    (row,) = cli.json("approvals", "list")
    cli.json("approvals", "approve", approval, "--as", "acme.bob", "--yes")
    with Installation(load(data_dir=cli.data_dir)) as at:
        (view,) = at.read(lambda c: approvals_of_job(c, row["job"]))
    assert answered([view], {"position": 1}) == [f"approval {approval}: acme.bob said yes"]
    assert answered([view], {"position": 2}) == []


def test_a_step_that_waits_for_a_consent_is_explained(cli: Cli) -> None:
    with Installation(load(data_dir=cli.data_dir)) as at:
        house = House(at.ledger)
        house.build()
        job = house.claim(house.job())
        dead = update(accounts).where(accounts.c.principal_id == "acme.ada").values(state=AccountState.NEEDS_RECONNECT)
        house.database.write(lambda c: c.execute(dead).rowcount)
        opened = house.database.write(partial(open_attempt, intent=intent_of(house, job)))
        assert isinstance(opened, Ended)
    (answer,) = cli.json("policy", "explain", job.id)
    assert (answer["step"], answer["decision"]) == (1, "as user ada, delegated: not begun yet")
    assert answer["because"][-1].startswith("github.Say needs the consent of acme.ada")


def test_an_approval_is_listed_shown_and_answered_as_somebody(cli: Cli, approval: str) -> None:
    (row,) = cli.json("approvals", "list", "--tenant", "acme")
    assert (row["id"], row["does"], row["amount"]) == (approval, "Refund a charge", "900 EUR")
    told = cli("approvals", "show", approval).output
    for said in (
        "for 900 EUR",
        "as the service (service, service) at stripe, through stripe-eu, https://api.stripe.example, on behalf of ada",
        "cents = 90000",
        "0 of 1 said yes",
    ):
        assert said in told
    assert "and that is a no" in told
    assert cli("approvals", "approve", approval, "--as", "acme.bob").exit_code == 2  # it asks first
    unknown = cli("approvals", "approve", approval, "--as", "bobb")
    assert (unknown.exit_code, "Approve this" in unknown.output) == (1, False)
    assert "acme.bobb is no user of tenant acme" in unknown.output
    wrong = cli.json("approvals", "approve", approval, "--as", "acme.ada", "--yes", code=1)
    assert "whoever asks does not approve" in wrong["message"]
    assert cli.json("approvals", "approve", approval, "--as", "bob", "--yes")["state"] == "approved"
    assert (
        "is approved already"
        in cli.json("approvals", "deny", approval, "--as", "acme.carol", "--yes", code=1)["message"]
    )
    assert "if its step has not opened by " in cli("approvals", "show", approval).output
    with Installation(load(data_dir=cli.data_dir)) as at:
        at.write(lambda c: c.execute(update(approvals).values(used_at=at.now())).rowcount)
    told = cli("approvals", "show", approval).output
    assert ("its step opened at " in told, "that is a no" in told) == (True, False)
    assert cli.json("approvals", "list") == []
    assert [one["state"] for one in cli.json("approvals", "list", "--state", "all")] == ["approved"]
    (answer,) = [row for row in cli.json("audit", "search", "--kind", "approval") if row["kind"] == "approval.answered"]
    assert answer["principal_id"] == "acme.bob"
    assert answer["detail"]["said_as"].startswith("cli:")


def test_whoever_says_who_they_are_and_replays_a_job_does_not_approve_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where everybody is one user of the machine, as in a container, what they claim is all there is."""
    monkeypatch.setenv("ASWHOM_OPERATOR", "Bob")
    with Installation(load(data_dir=cli.data_dir)) as at:
        house = House(at.ledger)
        house.build()
        case = ApprovalCase(house)
        house.database.write(partial(move_job, job=case.job.id, to=JobState.CANCELLED))
        cli.json("jobs", "replay", case.job.id, "--yes")
        assert house.row(case.job.id).replayed_by == ["cli:Bob"]
        case.again()
        case.ask(shown=SHOWN)
        approval = str(case.row.id)
    refused = cli.json("approvals", "approve", approval, "--as", "bob", "--yes", code=1)
    assert "asked for it" in refused["message"]
    monkeypatch.setenv("ASWHOM_OPERATOR", "dave")
    assert cli.json("approvals", "approve", approval, "--as", "carol", "--yes")["state"] == "approved"
    (answer,) = [row for row in cli.json("audit", "search", "--kind", "approval") if row["kind"] == "approval.answered"]
    assert answer["detail"]["said_as"] == "cli:dave"


def test_a_link_is_printed_for_an_approver_alone(cli: Cli, approval: str) -> None:
    made = cli.json("approvals", "link", approval, "--for", "bob")
    assert made["for"] == "acme.bob"
    assert "/approvals/" in made["url"]
    assert "is not waiting for" in cli.json("approvals", "link", approval, "--for", "globex.bob", code=1)["message"]
    assert "there is no approval" in cli.json("approvals", "show", "apr_0", code=1)["message"]
