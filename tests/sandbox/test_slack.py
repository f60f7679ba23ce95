"""Slack: 200 whatever happens, and `ok` says what did."""

import pytest

from tests.sandbox.driver import Sandbox


def bot(sandbox: Sandbox, workspace: int = 0) -> str:
    return str(sandbox.world["slack"]["workspaces"][workspace]["bot_token"])


def test_a_message_is_kept_where_it_was_posted(sandbox: Sandbox) -> None:
    workspace = sandbox.world["slack"]["workspaces"][0]
    channel = workspace["channels"][0]
    posted = sandbox.slack("chat.postMessage", bot(sandbox), channel=channel["id"], text="PR → ENG-1").json()
    assert (posted["ok"], posted["channel"], posted["message"]["text"]) == (True, channel["id"], "PR → ENG-1")
    kept = sandbox.read("slack", "messages")[-1]
    assert (kept["team_id"], kept["channel_name"], kept["ts"]) == (workspace["team_id"], "engineering", posted["ts"])
    assert kept["user"] == workspace["bot_user_id"]


def test_a_message_is_replaced_where_it_stands(sandbox: Sandbox) -> None:
    posted = sandbox.slack("chat.postMessage", bot(sandbox), channel="engineering", text="open").json()
    at = {"channel": posted["channel"], "ts": posted["ts"]}
    assert sandbox.slack("chat.update", bot(sandbox), **at, text="closed").json()["text"] == "closed"
    (kept,) = [one for one in sandbox.read("slack", "messages") if one["ts"] == posted["ts"]]
    assert kept["text"] == "closed"
    for token, where in ((bot(sandbox), {**at, "ts": "1.000001"}), (bot(sandbox, 1), at)):
        answer = sandbox.slack("chat.update", token, **where, text="x").json()
        assert answer["error"] in ("message_not_found", "channel_not_found")


@pytest.mark.parametrize(
    ("token", "fields", "error"),
    [
        (None, {}, "not_authed"),
        ("xoxb-unknown", {}, "invalid_auth"),
        ("bot", {"channel": "nowhere", "text": "x"}, "channel_not_found"),
        ("bot", {"channel": "engineering"}, "no_text"),
    ],
)
def test_a_refusal_is_a_200(sandbox: Sandbox, token: str | None, fields: dict[str, str], error: str) -> None:
    answer = sandbox.slack("chat.postMessage", bot(sandbox) if token == "bot" else token, **fields)
    assert (answer.status_code, answer.json()) == (200, {"ok": False, "error": error})


def test_another_workspaces_channel_is_not_found(sandbox: Sandbox) -> None:
    channel = sandbox.world["slack"]["workspaces"][1]["channels"][0]["id"]
    answer = sandbox.slack("chat.postMessage", bot(sandbox), channel=channel, text="x")
    assert answer.json()["error"] == "channel_not_found"


def test_a_revoked_token_says_so(sandbox: Sandbox) -> None:
    team_id = sandbox.world["slack"]["workspaces"][1]["team_id"]
    assert sandbox.slack("auth.revoke", bot(sandbox, 1)).json() == {"ok": True, "revoked": True}
    assert sandbox.slack("auth.test", bot(sandbox, 1)).json()["error"] == "token_revoked"
    sandbox.order("slack", "restore", team_id=team_id)
    assert sandbox.slack("auth.test", bot(sandbox, 1)).json()["team_id"] == team_id


def test_a_rate_limit_is_a_429_with_retry_after(sandbox: Sandbox) -> None:
    limit = {"status": 429, "headers": {"Retry-After": "7"}, "body": {"ok": False, "error": "ratelimited"}}
    sandbox.order("slack", "faults", endpoint="chat.postMessage", mode="status", **limit)
    answer = sandbox.slack("chat.postMessage", bot(sandbox), channel="engineering", text="x")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert sandbox.slack("chat.postMessage", bot(sandbox), channel="engineering", text="x").json()["ok"] is True
