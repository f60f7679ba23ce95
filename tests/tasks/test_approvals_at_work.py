"""A step that needs an approval, in a worker's runtime: it is sent once it is approved, as it was shown, and once."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from sqlalchemy import update

from identity.model import ScopeKind
from identity.principals import link_alias
from identity.tables import provider_connections
from pipeline.approvals.votes import Counted
from pipeline.states import ApprovalState, JobState
from tests.tasks.approvals import FOUR_EYES, apply, asked, say
from tests.tasks.in_process_system import InProcessSystem


def test_a_step_waits_for_two_and_is_done_once_as_it_was_shown(waiting: InProcessSystem) -> None:
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


def test_a_worker_killed_after_the_approval_does_it_once(waiting: InProcessSystem) -> None:
    say(waiting, "bob")
    say(waiting, "carol")
    waiting.when("after_call", 2, waiting.kill)
    (job,) = waiting.settle()
    assert (job.state, job.runs_spent) == (JobState.DONE, 1)
    assert asked(waiting).state is ApprovalState.APPROVED


def test_a_no_refuses_the_step_and_a_replay_asks_anew(waiting: InProcessSystem) -> None:
    assert say(waiting, "carol", yes=False) == Counted(state=ApprovalState.DENIED)
    (job,) = waiting.settle()
    assert job.state == JobState.DEAD
    assert "was not approved: acme.carol said no" in job.reason
    assert waiting.authors() == []


def test_a_connection_that_leads_elsewhere_since_the_yes_is_asked_about_anew(waiting: InProcessSystem) -> None:
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


def test_a_sender_with_another_login_by_now_is_known_by_their_number_and_their_yes_is_none(
    waiting: InProcessSystem,
) -> None:
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
    assert [upstream for upstream, _, _ in waiting.authors()] == ["salesforce"], (
        "ada's deal, which needs nobody's yes now"
    )


def test_a_revocation_between_approval_and_call_wins(waiting: InProcessSystem) -> None:
    say(waiting, "bob")
    say(waiting, "carol")
    waiting.revoke(ScopeKind.USER, "acme.ada", "acme")
    (job,) = waiting.settle()
    assert job.state == JobState.CANCELLED
    assert waiting.authors() == []


def test_a_tighter_policy_between_approval_and_call_asks_anew(waiting: InProcessSystem) -> None:
    say(waiting, "bob")
    say(waiting, "carol")
    first = asked(waiting).id
    apply(waiting, FOUR_EYES.replace('"1h"', '"2h"'))
    (job,) = waiting.settle()
    assert (job.state, job.wait) == (JobState.WAITING, "approval")
    assert asked(waiting).id != first
    assert waiting.authors() == []
