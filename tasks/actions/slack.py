"""Slack's Web API: messages (docs.slack.dev/reference/methods). Errors come as 200 with `ok: false`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from identity.digests import json_digest
from pipeline.action import (
    Action,
    Call,
    Effect,
    EndpointClass,
    Facts,
    Judgement,
    Per,
    R,
    Recovery,
    Request,
    Response,
    Result,
    Verdict,
    judge_status,
    retry_after,
)
from pipeline.approvals.shown import Shown, in_lines, quorums
from pipeline.reading import error_name, parse
from pipeline.signed_answer import APPROVE, DENY, carried

RATE_LIMITED = frozenset({"rate_limited", "ratelimited"})  # the older and the newer spelling
TOKEN_REFUSED = frozenset({"account_inactive", "invalid_auth", "not_authed", "token_expired", "token_revoked"})
# The workspace is moving into an organization; nothing is done until it has moved.
MIGRATING = frozenset({"org_login_required", "team_added_to_org"})
MIGRATION = timedelta(minutes=5)
# Slack's internal errors: chat.postMessage documents that it may have failed half-way.
MAYBE_DONE = frozenset({"fatal_error", "internal_error", "service_unavailable"})

# chat.postMessage is limited to one message per second and channel; used without a Retry-After.
PACE = timedelta(seconds=1)

Channel = Annotated[
    str,
    Field(
        pattern=r"^[^\s#<>]{1,80}$",
        description="the channel's id, as C0123ABCD, rather than its name, which can change",
    ),
]
Timestamp = Annotated[str, Field(pattern=r"^\d{1,12}\.\d{6}$", description="the `ts` of a message")]
LONGEST_SECTION = 3_000  # characters of a section's text
# Slack truncates longer texts.
Text = Annotated[
    str,
    Field(min_length=1, max_length=40_000, description="Slack's mrkdwn, in which &, < and > are &amp;, &lt; and &gt;"),
]


def escape(text: str) -> str:
    """Escape *text* so that Slack shows it literally: otherwise a title with `<!channel>` notifies everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def link(url: str, text: str) -> str:
    return f"<{escape(url)}|{escape(text)}>"


class Message(Result):
    channel: str  # its id, even if a name was given
    ts: str  # identifies the message within the channel


class _Answer(BaseModel):
    ok: bool
    error: str = ""
    needed: Any = None  # the scope that missing_scope names


_SCOPES = re.compile(r"[a-z:._,-]{1,200}")


class SlackAction(Action[R]):
    """Base of Slack's actions: the meaning of a response."""

    def judge(self, response: Response) -> Judgement:
        by_status = judge_status(response, effect=self.facts.effect)
        unsure = Verdict.RETRY if self.facts.effect is Effect.READ else Verdict.UNKNOWN
        try:
            answer = _Answer.model_validate_json(response.body)
        except ValidationError:
            if by_status.verdict is not Verdict.SUCCESS:
                return by_status
            return Judgement(verdict=unsure, reason=f"status {response.status}, but the body does not say ok")
        if answer.ok:
            return by_status
        # The body takes precedence over the status: a 503 with service_unavailable may have failed half-way, as a 200
        # may.
        reason = f"slack says {error_name(answer.error) if answer.error else 'no'}"
        if answer.error in RATE_LIMITED:
            wait = retry_after(response.headers) or PACE
            return Judgement(verdict=Verdict.RETRY, reason=reason, retry_after=wait)
        if answer.error in TOKEN_REFUSED:
            return Judgement(verdict=Verdict.UNAUTHORIZED, reason=reason)
        if answer.error in MAYBE_DONE:
            return Judgement(verdict=unsure, reason=reason)
        if answer.error in MIGRATING:
            return Judgement(verdict=Verdict.RETRY, reason=reason, retry_after=MIGRATION)
        if by_status.verdict is not Verdict.SUCCESS:
            return by_status
        if answer.error == "missing_scope" and isinstance(answer.needed, str) and _SCOPES.fullmatch(answer.needed):
            reason += f": install the app anew with the scope {answer.needed}"
        return Judgement(verdict=Verdict.FAILED, reason=reason)


def _plain(text: str) -> dict[str, str | bool]:
    """Return text that Slack shows literally: no mentions, no emphasis, no emoji from words."""
    return {"type": "plain_text", "text": text, "emoji": False}


_POSTS = Facts(
    provider="slack",
    scopes=frozenset({"chat:write"}),  # it cannot read messages back: hence ASK
    effect=Effect.WRITE,
    attribution=False,
    recovery=Recovery.ASK,
    endpoints=EndpointClass(name="chat.postMessage", per=Per.TENANT),
    additive=True,
)


class _Posts(SlackAction[Message]):
    """Base of both actions that post. It has no facts, which would make it an action itself."""

    def read(self, response: Response) -> Message:
        return parse(response, Message)

    def external_id(self, result: Message) -> str:
        return f"{result.channel}:{result.ts}"


class AskApproval(_Posts):
    """Ask for an approval, with an approve and a deny button.

    Everything shown is computed from `shown`, and the buttons carry its digest: buttons of a message that shows
    anything else do not count. If Slack cannot show all of it, there are no buttons.
    """

    facts = replace(_POSTS, tool=False)  # approvers trust what it shows

    channel: Channel
    approval: Annotated[str, Field(pattern=r"^apr_[0-9a-z]{10,60}$")]
    shown: Shown
    expires_at: str

    def request(self, call: Call) -> Request:
        shown = self.shown.document
        lines = _lines(shown)
        whole = "\n".join(lines)
        end = f"No answer by {self.expires_at} is a no."
        blocks: list[dict[str, Any]] = [{"type": "section", "text": _plain(whole[:LONGEST_SECTION])}]
        if len(whole) <= LONGEST_SECTION:
            value = carried(self.approval, json_digest(shown))
            buttons = [_button("Approve", APPROVE, value, "primary"), _button("Deny", DENY, value, "danger")]
            blocks += [{"type": "context", "elements": [_plain(end)]}, {"type": "actions", "elements": buttons}]
        else:
            end = f"This is not all of it: answer {self.approval} where all of it is shown. {end}"
            blocks.append({"type": "context", "elements": [_plain(end)]})
        text = escape(f"May this be done? {lines[0]}")
        body = {"channel": self.channel, "text": text, "blocks": blocks, "unfurl_links": False}
        return Request(method="POST", path="/chat.postMessage", json=body)


class EndQuestion(SlackAction[Message]):
    """Remove the buttons from a decided question, and state the outcome in it."""

    facts = Facts(
        provider="slack",
        scopes=frozenset({"chat:write"}),
        effect=Effect.WRITE,
        attribution=False,
        recovery=Recovery.IDEMPOTENT,  # replacing a message by the same one twice changes nothing more
        endpoints=EndpointClass(name="chat.update", per=Per.TENANT),
        tool=False,  # it could overwrite any message of the app, including how a question was answered
    )

    channel: Channel
    ts: Timestamp  # of the question
    shown: Shown
    outcome: Annotated[str, Field(min_length=1, max_length=LONGEST_SECTION)]  # plain text

    def request(self, call: Call) -> Request:
        lines = _lines(self.shown.document)
        blocks: list[dict[str, Any]] = [
            {"type": "section", "text": _plain("\n".join(lines)[:LONGEST_SECTION])},
            {"type": "context", "elements": [_plain(self.outcome)]},
        ]
        text = escape(f"{self.outcome} {lines[0]}")
        return Request(
            method="POST",
            path="/chat.update",
            json={"channel": self.channel, "ts": self.ts, "text": text, "blocks": blocks},
        )

    def read(self, response: Response) -> Message:
        return parse(response, Message)

    def external_id(self, result: Message) -> str:
        return f"{result.channel}:{result.ts}"


def _lines(shown: Mapping[str, Any]) -> list[str]:
    return [*in_lines(shown), *quorums(shown)]


def _button(text: str, action: str, value: str, style: str) -> dict[str, Any]:
    return {"type": "button", "action_id": action, "text": _plain(text), "value": value, "style": style}


class PostMessage(_Posts):
    """Post a message, or a reply with `thread`. If Slack does not respond, a person must check the outcome."""

    facts = _POSTS

    channel: Channel
    text: Text  # mrkdwn: pass other people's text through `escape`
    thread: Timestamp | None = Field(
        default=None, description="the `ts` of the message that this answers, in its thread"
    )

    def request(self, call: Call) -> Request:
        body: dict[str, str | bool] = {"channel": self.channel, "text": self.text, "unfurl_links": False}
        if self.thread is not None:
            body["thread_ts"] = self.thread
        return Request(method="POST", path="/chat.postMessage", json=body)
