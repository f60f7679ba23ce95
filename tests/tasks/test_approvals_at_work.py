"""A step that needs an approval, in a worker's runtime: it is sent once it is approved, as it was shown, and once."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import pytest
from sqlalchemy import update

from identity.model import PrincipalKind, ScopeKind
from identity.principals import ensure_principal, link_alias
from identity.tables import provider_connections
from pipeline.ledger.approval_views import ApprovalView, approvals_page
from pipeline.ledger.paging import Turn
from pipeline.ledger.votes import Counted, NotCounted, Through, Vote
from pipeline.policy.change import put_in_force
from pipeline.states import ApprovalState, JobState
from tests.tasks.test_business_workflows import deal, opportunity
from tests.tasks.town import Town

FOUR_EYES = """format = 1
[[rule]]
name = "four eyes"
when = { action = "salesforce.Update*" }
approval = { approvers = ["bob", "carol"], quorum = 2, expires_in = "1h" }
"""


def apply(town: Town, text: str) -> None:
    change = partial(put_in_force, over=None, by="cli:test", audit_id=town.runtime.ids("aud"), now=datetime.now(UTC))
    town.runtime.database.write(lambda c: change(c, "acme", text))


def asked(town: Town) -> ApprovalView:
    """The newest."""
    return town.runtime.database.read(lambda c: approvals_page(c, Turn(limit=1), tenant="acme", state=None))[1][0]


def say(town: Town, who: str, *, yes: bool = True, digest: str | None = None) -> Counted | NotCounted:
    view = asked(town)
    given = Vote(
        approval=view.id,
        tenant="acme",
        principal=f"acme.{who}",
        yes=yes,
        digest=digest or view.digest,
        through=Through.CONSOLE,
        said_as=who,
    )
    return town.runtime.approving.vote(given, now=datetime.now(UTC))


@pytest.fixture
def waiting(town: Town) -> Town:
    """Ada's deal is won, and the step that writes it down waits for bob and carol."""
    for name in ("ada", "bob", "carol"):
        make = partial(ensure_principal, tenant="acme", kind=PrincipalKind.USER, name=name, now=datetime.now(UTC))
        town.runtime.database.write(partial(make, id=f"acme.{name}"))
    apply(town, FOUR_EYES)
    town.connect_seller("acme", "ada")
    town.report("acme", "deal.changed", deal(opportunity(town), amount=12_000))
    (job,) = town.settle()
    assert (job.state, job.wait) == (JobState.WAITING, "approval")
    return town


def test_a_step_waits_for_two_and_is_done_once_as_it_was_shown(waiting: Town) -> None:
    shown = asked(waiting).shown
    assert (shown["action"], shown["does"]) == ("salesforce.UpdateOpportunity", "Set an opportunity's stage")
    assert (shown["as_whom"]["name"], shown["as_whom"]["pattern"]) == ("ada", "delegated")
    assert shown["parameters"]["amount"] == 12_000
    assert isinstance(say(waiting, "bob"), Counted)
    waiting.settle()
    assert waiting.authors() == []
    assert say(waiting, "carol") == Counted(state=ApprovalState.APPROVED)
    (job,) = waiting.settle()
    assert job.state == JobState.DONE
    assert waiting.authors() == [("salesforce", "ada", "user")]
    assert waiting.steps()[-1].parameters == shown["parameters"]


def test_a_worker_killed_after_the_approval_does_it_once(waiting: Town) -> None:
    say(waiting, "bob")
    say(waiting, "carol")
    waiting.when("after_call", 2, waiting.kill)
    (job,) = waiting.settle()
    assert (job.state, job.runs_spent) == (JobState.DONE, 1)
    assert asked(waiting).state is ApprovalState.APPROVED


def test_a_no_refuses_the_step_and_a_replay_asks_anew(waiting: Town) -> None:
    assert say(waiting, "carol", yes=False) == Counted(state=ApprovalState.DENIED)
    (job,) = waiting.settle()
    assert job.state == JobState.DEAD
    assert "was not approved: acme.carol said no" in job.reason
    assert waiting.authors() == []


def test_a_connection_that_leads_elsewhere_since_the_yes_is_asked_about_anew(waiting: Town) -> None:
    say(waiting, "bob")
    say(waiting, "carol")
    first = asked(waiting)
    elsewhere = update(provider_connections).where(provider_connections.c.provider == "salesforce")
    elsewhere = elsewhere.values(api_url=waiting.sandbox.url("salesforce", "/elsewhere"))
    waiting.runtime.database.write(lambda c: c.execute(elsewhere).rowcount)
    (job,) = waiting.settle()
    assert (job.state, job.wait) == (JobState.WAITING, "approval")
    assert asked(waiting).id != first.id
    assert asked(waiting).shown["through"] == first.shown["through"] + "/elsewhere"
    assert waiting.authors() == []


def test_a_sender_with_another_login_by_now_is_known_by_their_number_and_their_yes_is_none(waiting: Town) -> None:
    """Carol asks for a review at GitHub under a login of hers that nobody linked, and approves its notice."""
    apply(waiting, FOUR_EYES.replace("salesforce.Update*", "slack.PostMessage"))
    number = waiting.pull("acme/shop", "ada")
    waiting.told("acme/shop", number, "review_requests", reviewer="grace")
    waiting.settle()
    (job,) = [one for one in waiting.jobs() if one.workflow == "announce_review"]
    assert job.triggered_by == f"github:{job.event['sender']['id']}"
    assert isinstance(say(waiting, "carol"), Counted)
    link = partial(link_alias, tenant="acme", provider="github", principal="acme.carol", login="a-former-name")
    link = partial(link, external_id=str(job.event["sender"]["id"]), made_by="admin:test", now=datetime.now(UTC))
    waiting.runtime.database.write(link)
    assert say(waiting, "bob") == Counted(state=ApprovalState.OPEN)
    waiting.settle()
    assert [system for system, _, _ in waiting.authors()] == ["salesforce"], "ada's deal, which needs nobody's yes now"


def test_a_revocation_between_approval_and_call_wins(waiting: Town) -> None:
    say(waiting, "bob")
    say(waiting, "carol")
    waiting.revoke(ScopeKind.USER, "acme.ada", "acme")
    (job,) = waiting.settle()
    assert job.state == JobState.CANCELLED
    assert waiting.authors() == []


def test_a_tighter_policy_between_approval_and_call_asks_anew(waiting: Town) -> None:
    say(waiting, "bob")
    say(waiting, "carol")
    first = asked(waiting).id
    apply(waiting, FOUR_EYES.replace('"1h"', '"2h"'))
    (job,) = waiting.settle()
    assert (job.state, job.wait) == (JobState.WAITING, "approval")
    assert asked(waiting).id != first
    assert waiting.authors() == []
