"""An approval asked for and given in Slack: the message, the signed press of its button, and the thread."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast
from urllib.parse import urlencode

import pytest
from sqlalchemy import Row, select, update

from identity.connections.registry import get_connection
from identity.http.client import Answer, Client, HttpRequest
from identity.principals import link_alias
from identity.tables import provider_connections
from pipeline.approvals.tables import approvals
from pipeline.approvals.views import ApprovalView
from pipeline.jobs import pins
from pipeline.jobs.moves import move_job
from pipeline.states import ApprovalState, JobState
from pipeline.steps.replay import replay_job
from pipeline.tables import deliveries, workflow_settings
from pipeline.upkeep import duties_of
from tests.tasks.approvals import apply, asked, say
from tests.tasks.in_process_system import InProcessSystem
from tests.webhooks.parts import FORM, MemoryRing, slack_headers
from webhooks.app import create_app
from webhooks.replies import Replies
from webhooks.settings import WebSettings

TRIGGERS = itertools.count(1)
BOB, CAROL, STRANGER = "U0BOB", "U0CAROL", "U0STRANGER"


class Hook:
    """Slack's end of a `response_url`: what it was told, newest last."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def send(self, request: HttpRequest, **_: Any) -> Answer:
        self.told.append(json.loads(request.body)["text"])
        return Answer(status=200, headers={}, body=b"ok", elapsed=timedelta())


class Chat:
    """Acme's workspace: where the question stands, and people press its buttons."""

    def __init__(self, system: InProcessSystem) -> None:
        self.system = system
        settings = WebSettings(base_url="https://aswhom.example")
        self.hook = Hook()
        replies = Replies(cast("Client", self.hook))
        app = create_app(settings, system.runtime.intake, system.registry, MemoryRing(), replies=replies)
        self._web = app.test_client()
        self._api = system.runtime.database.read(lambda c: get_connection(c, "slack")).api_url
        (self.workspace,) = [one for one in system.sandbox.world["slack"]["workspaces"] if one["name"] == "acme"]
        self.channel = self.workspace["channels"][0]["id"]
        for name, user in (("bob", BOB), ("carol", CAROL)):
            link = partial(
                link_alias,
                tenant="acme",
                provider="slack",
                external_id=user,
                principal=f"acme.{name}",
                login=name,
                made_by="admin:test",
                now=datetime.now(UTC),
            )
            system.runtime.database.write(link)
        on = workflow_settings.insert().values(
            tenant_id="acme", workflow="ask_in_slack", enabled=True, config={"channel": self.channel}
        )
        system.runtime.database.write(lambda c: c.execute(on))

    def tell(self) -> None:
        """Housekeeping tells the news, and the jobs it starts are done."""
        duties = {duty.name: duty for duty in duties_of(self.system.runtime)}
        duties["tell-approvals"].run()
        self.system.work_once()

    def messages(self) -> list[dict[str, Any]]:
        ours = {row.id for row in self.system.attempts()}
        return [one for one in self.system.sandbox.read("slack", "messages") if one["attempt"] in ours]

    def buttons(self) -> dict[str, dict[str, Any]]:
        (question,) = [one for one in self.messages() if one.get("blocks")]
        (row,) = [block for block in question["blocks"] if block["type"] == "actions"]
        return {element["action_id"]: element for element in row["elements"]}

    def press(self, user: str, button: dict[str, Any], *, team: str = "", posted: str | None = None) -> Row[Any]:
        """As Slack sends it, signed, to the web before this ledger; the delivery that was made of it."""
        payload = {
            "type": "block_actions",
            "trigger_id": f"1.{next(TRIGGERS)}.x",
            "team": {"id": team or self.workspace["team_id"]},
            "user": {"id": user},
            "message": {"team": posted},
            "response_url": f"{self._api}/response",
            "actions": [{"type": "button", "action_id": button["action_id"], "value": button["value"]}],
        }
        body = urlencode({"payload": json.dumps(payload)}).encode()
        secret = self.system.sandbox.world["slack"]["signing_secret"]
        headers = slack_headers(body, secret=secret, at=datetime.now(UTC))
        answer = self._web.post("/webhooks/slack/slack", data=body, content_type=FORM, headers=headers, buffered=True)
        assert (answer.status_code, answer.data) == (200, b""), "whoever pressed would be shown it"
        return self.system.rows(select(deliveries).order_by(deliveries.c.received_at, deliveries.c.id))[-1]


@pytest.fixture
def chat(waiting: InProcessSystem) -> Chat:
    made = Chat(waiting)
    made.tell()
    return made


def view(chat: Chat) -> ApprovalView:
    return asked(chat.system)


def test_two_people_approve_by_button_and_the_thread_says_so(chat: Chat) -> None:
    (question,) = chat.messages()
    whole = question["blocks"][0]["text"]
    assert whole["type"] == "plain_text"
    for said in (
        "Set an opportunity's stage (salesforce.UpdateOpportunity)",
        "as ada (user, delegated)",
        "amount = 12000",
        "started by a delivery",
        "needs 2 of bob, carol to say yes, by the rule four eyes",
        f"SHA-256 of the request: {view(chat).shown['request_sha256']}",
    ):
        assert said in whole["text"]
    yes = chat.buttons()["aswhom.approve"]
    assert chat.press(BOB, yes).outcome == "accepted"
    assert view(chat).state is ApprovalState.OPEN
    counts = f"Your answer counts: acme.bob answered approval {view(chat).id}, which is open"
    assert chat.hook.told == [f"{counts}; four eyes: 1 of 2 said yes."]
    pressed = chat.press(CAROL, yes)
    assert (pressed.outcome, view(chat).state) == ("accepted", ApprovalState.APPROVED)
    (job,) = [one for one in chat.system.jobs() if one.id == view(chat).job]
    assert job.state == JobState.QUEUED, "the press wakes the job in its own commit"
    chat.system.settle()
    assert ("salesforce", "ada", "user") in chat.system.authors()
    chat.tell()
    closed, reply = chat.messages()
    assert [block["type"] for block in closed["blocks"]] == ["section", "context"], "the buttons are gone"
    assert closed["blocks"][0] == question["blocks"][0]
    assert closed["blocks"][1]["elements"][0]["text"] == "This is approved: by acme.bob, acme.carol."
    assert (reply["thread_ts"], reply["text"]) == (question["ts"], "This is approved: by acme.bob, acme.carol.")
    chat.tell()  # what was told is not told again
    assert len(chat.messages()) == 2
    assert {answer.through for answer in view(chat).answers} == {"slack"}


def test_the_thread_says_how_it_ended_though_nobody_may_take_the_buttons_off(chat: Chat) -> None:
    assert chat.press(CAROL, chat.buttons()["aswhom.deny"]).outcome == "accepted"
    apply(
        chat.system,
        'format = 1\n[[rule]]\nname = "no edits"\nwhen = { action = "slack.EndQuestion" }\ndeny = "never"\n',
    )
    chat.tell()
    question, answer = chat.messages()
    assert (answer["thread_ts"], answer["text"]) == (question["ts"], "This is denied: acme.carol said no.")
    assert chat.buttons()
    ended = [one for one in chat.system.jobs() if one.workflow == "ask_in_slack"]
    assert [one.state for one in ended] == [JobState.DONE] * 2


def test_the_thread_says_that_the_job_has_ended_though_questions_go_to_another_channel_since(chat: Chat) -> None:
    runtime = chat.system.runtime
    moved = update(workflow_settings).values(config={"channel": chat.workspace["channels"][1]["id"]})
    elsewhere = moved.where(workflow_settings.c.workflow == "ask_in_slack")
    runtime.database.write(lambda c: c.execute(elsewhere).rowcount)
    (job,) = [one for one in chat.system.jobs() if one.wait == "approval"]
    runtime.database.write(partial(move_job, job=job.id, to=JobState.CANCELLED))
    {duty.name: duty for duty in duties_of(runtime)}["end-approvals"].run()
    assert (view(chat).state, view(chat).reason) == (ApprovalState.VOID, "its job has ended")
    chat.tell()
    question, answer = chat.messages()
    assert (answer["text"], answer["thread_ts"]) == ("This is void: its job has ended.", question["ts"])
    assert answer["channel"] == chat.channel


def test_a_job_that_was_to_answer_and_is_replayed_answers_where_was_asked(chat: Chat) -> None:
    runtime, write = chat.system.runtime, chat.system.runtime.database.write
    moved = update(workflow_settings).values(config={"channel": chat.workspace["channels"][1]["id"]})
    write(lambda c: c.execute(moved.where(workflow_settings.c.workflow == "ask_in_slack")).rowcount)
    assert chat.press(CAROL, chat.buttons()["aswhom.deny"]).outcome == "accepted"
    {duty.name: duty for duty in duties_of(runtime)}["tell-approvals"].run()
    (told,) = [one for one in chat.system.jobs() if one.workflow == "ask_in_slack" and one.state == JobState.QUEUED]
    write(partial(move_job, job=told.id, to=JobState.CANCELLED))  # as a stop of its agent does
    write(partial(replay_job, job=told.id, by="admin:test", at=datetime.now(UTC)))
    chat.system.work_once()
    question, answer = chat.messages()
    assert (answer["thread_ts"], answer["channel"]) == (question["ts"], chat.channel)


def test_whose_press_does_not_count(chat: Chat) -> None:
    yes = chat.buttons()["aswhom.approve"]
    stranger = chat.press(STRANGER, yes)
    assert stranger.outcome == "refused"
    assert "nobody's alias" in stranger.reason
    assert "does not count: nobody here has said who you are" in chat.hook.told[-1], "and no alias, no command"
    nobodys = chat.press(BOB, yes, team="T0NOBODY")
    assert (nobodys.outcome, nobodys.reason) == ("refused", "no tenant has installation T0NOBODY")
    assert "does not count: this is not set up here" in chat.hook.told[-1]
    assert chat.press(BOB, yes, team="T0NOBODY", posted="T0OTHER").outcome == "refused"
    (other,) = [one for one in chat.system.sandbox.world["slack"]["workspaces"] if one["name"] == "globex"]
    assert chat.press(BOB, yes, team=other["team_id"]).outcome == "refused"
    forged = chat.press(BOB, {**yes, "value": yes["value"][:-64] + "0" * 64})
    assert (forged.outcome, "look at it again" in forged.reason) == ("refused", True)
    config = chat.system.runtime.database.read(lambda c: get_connection(c, "slack")).config
    of_slack = update(provider_connections).where(provider_connections.c.id == "slack")
    # Another Slack numbers its users by itself: its BOB is not that one's.
    elsewhere, here = of_slack.values(config={**config, "people": "gov"}), of_slack.values(config=config)
    chat.system.runtime.database.write(lambda c: c.execute(elsewhere).rowcount)
    assert "nobody's alias" in chat.press(BOB, yes).reason
    chat.system.runtime.database.write(lambda c: c.execute(here).rowcount)
    assert view(chat).state is ApprovalState.OPEN
    assert chat.press(CAROL, chat.buttons()["aswhom.deny"]).outcome == "accepted"
    assert view(chat).state is ApprovalState.DENIED
    late = chat.press(BOB, yes)
    assert (late.outcome, "is denied already" in late.reason) == ("refused", True)


def test_the_question_itself_is_not_asked_about(chat: Chat) -> None:
    """A rule about everything holds for the asking, too: its job waits, and nobody is asked about that in turn."""
    apply(chat.system, 'format = 1\n[[rule]]\nname = "all"\napproval = { approvers = ["bob"] }\n')
    chat.system.settle()
    before = len(chat.system.jobs())
    for _ in range(3):
        chat.tell()
    waits = [job for job in chat.system.jobs() if job.workflow == "ask_in_slack" and job.wait == "approval"]
    assert waits
    assert len(chat.system.jobs()) <= before + 2


def test_what_was_decided_before_it_was_asked_is_not_mentioned(waiting: InProcessSystem) -> None:
    say(waiting, "bob", yes=False)
    chat = Chat(waiting)
    chat.tell()
    assert chat.messages() == []
    # Told as decided, and then void: it was never a question in the channel.
    waiting.runtime.database.write(lambda c: c.execute(update(approvals).values(state=ApprovalState.VOID)).rowcount)
    chat.tell()
    assert chat.messages() == []
    assert {job.state for job in waiting.jobs()} == {JobState.DEAD, JobState.DONE}
    off = waiting.runtime.database.read(lambda c: pins.enabled(c, "globex", "ask_in_slack"))
    assert off is None
