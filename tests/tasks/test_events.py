"""Events, read from every payload that GitHub, Slack and Linear publish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from identity.errors import BadInput
from pipeline.workflow import Registry
from tasks.devops_assistant import link_pull_request
from tasks.events.github import PULL_REQUEST_ACTIONS, PullRequestEvent, pull_request
from tasks.events.linear import CommentEvent, comment
from tasks.events.slack import AppMentionEvent, app_mention


def load(folder: Path, pattern: str) -> dict[str, dict[str, Any]]:
    found = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob(pattern))}
    assert found, f"nothing like {pattern} in {folder}"
    return found


@pytest.fixture
def pulls(published: Path) -> dict[str, dict[str, Any]]:
    return load(published / "github" / "payloads" / "pull_request", "*.json")


@pytest.fixture
def mentions(published: Path) -> dict[str, dict[str, Any]]:
    return load(published / "slack" / "payloads", "event_callback.app_mention.*.json")


def test_every_published_pull_request_payload_is_read(pulls: dict[str, dict[str, Any]]) -> None:
    trigger = pull_request(*PULL_REQUEST_ACTIONS)
    for name, body in pulls.items():
        event = trigger.read(body)
        assert event is not None, name
        assert event.action == body["action"], name
        assert (event.repo, event.number) == (body["repository"]["full_name"], body["number"]), name
        assert event.author is not None, name
        assert event.author.id == str(body["pull_request"]["user"]["id"]), name
        assert event.sender.login == body["sender"]["login"], name
        assert event.labels == tuple(label["name"] for label in body["pull_request"]["labels"]), name
        assert event.label == body.get("label", {}).get("name"), name
        assert PullRequestEvent.model_validate_json(event.model_dump_json()) == event, name


def test_only_the_named_actions_start_anything(pulls: dict[str, dict[str, Any]]) -> None:
    trigger = pull_request("opened", "labeled")
    started = {body["action"] for body in pulls.values() if trigger.read(body) is not None}
    assert started == {"opened", "labeled"}


def test_our_actions_are_those_of_the_published_schema(published: Path) -> None:
    schema = json.loads((published / "github" / "webhooks-schema.bundled.json").read_text())
    prefix = "pull_request$"
    named = {name.removeprefix(prefix) for name in schema["definitions"] if name.startswith(prefix)}
    assert named == PULL_REQUEST_ACTIONS


def test_an_action_that_is_never_sent_is_refused() -> None:
    with pytest.raises(TypeError, match="labelled"):
        pull_request("opened", "labelled")
    with pytest.raises(TypeError, match="none at all"):
        pull_request()
    with pytest.raises(TypeError, match="created"):
        comment("created")


def test_a_pull_request_of_a_deleted_account_has_no_author(pulls: dict[str, dict[str, Any]]) -> None:
    body = pulls["labeled.payload.json"]
    event = pull_request("labeled").read({**body, "pull_request": {**body["pull_request"], "user": None}})
    assert event is not None
    assert event.author is None


def test_a_body_of_another_shape_is_bad_input_that_names_the_fields(pulls: dict[str, dict[str, Any]]) -> None:
    body = {**pulls["labeled.payload.json"], "pull_request": {"number": "many"}}
    with pytest.raises(ValidationError):
        pull_request("labeled").read(body)
    with pytest.raises(BadInput, match=r"pull_request\.number"):
        Registry([link_pull_request]).match("github", "pull_request", body)


def test_a_delivery_names_the_author_as_user_and_the_sender_as_trigger(pulls: dict[str, dict[str, Any]]) -> None:
    body = pulls["labeled.payload.json"]
    body = {**body, "sender": {**body["sender"], "login": "a-maintainer", "id": 7}}
    [match] = Registry([link_pull_request]).match("github", "pull_request", body)
    assert match.user is not None
    assert match.user.id == str(body["pull_request"]["user"]["id"])
    assert match.triggered_by == "a-maintainer"


def test_every_published_mention_is_read(mentions: dict[str, dict[str, Any]]) -> None:
    for name, body in mentions.items():
        event = app_mention().read(body)
        if "channel" not in body["event"]:  # one of the examples is cut short: there is nowhere to answer
            assert event is None, name
            continue
        assert event is not None, name
        assert (event.team, event.channel, event.user.id) == (body["team_id"], "C111", "W222"), name
        assert event.thread == event.ts == "1595926230.009600", name
        assert AppMentionEvent.model_validate_json(event.model_dump_json()) == event, name


def test_a_mention_in_a_thread_is_answered_there(mentions: dict[str, dict[str, Any]]) -> None:
    body = next(iter(mentions.values()))
    event = app_mention().read({**body, "event": {**body["event"], "thread_ts": "1595926000.000100"}})
    assert event is not None
    assert event.thread == "1595926000.000100"


def test_a_bot_that_mentions_us_is_not_answered(mentions: dict[str, dict[str, Any]]) -> None:
    body = next(iter(mentions.values()))
    assert app_mention().read({**body, "event": {**body["event"], "bot_id": "B1"}}) is None


def test_the_published_comment_is_read(published: Path) -> None:
    body = json.loads((published / "linear" / "examples" / "comment.create.json").read_text())
    event = comment("create").read(body)
    assert event is not None
    assert (event.issue_id, event.url) == (body["data"]["issueId"], body["url"])
    assert event.author is not None
    assert event.author.id == body["data"]["userId"]
    assert CommentEvent.model_validate_json(event.model_dump_json()) == event
    assert comment("remove").read(body) is None
