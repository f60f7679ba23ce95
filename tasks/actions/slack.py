"""Slack's Web API: messages (docs.slack.dev/reference/methods). Errors come as 200 with `ok: false`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, Field, ValidationError

from identity.model import Effect
from identity.quoting import error_name
from pipeline.action import (
    Action,
    Call,
    Facts,
    Judgement,
    Recovery,
    Request,
    Response,
    Result,
    Verdict,
    judge_status,
    retry_after,
)
from pipeline.limits import EndpointClass, Per
from tasks.actions.answers import parse

R = TypeVar("R", bound=Result)

RATE_LIMITED = frozenset({"rate_limited", "ratelimited"})  # the older and the newer spelling
TOKEN_REFUSED = frozenset({"account_inactive", "invalid_auth", "token_expired", "token_revoked"})
# Slack's own faults: chat.postMessage documents that it may have failed half-way.
MAYBE_DONE = frozenset({"fatal_error", "internal_error", "service_unavailable"})

# chat.postMessage is limited to one message a second and channel; used when no Retry-After says more.
PACE = timedelta(seconds=1)

Channel = Annotated[str, Field(pattern=r"^[^\s#<>]{1,80}$")]  # an id (C…, D…, G…) rather than a name, which can change
Timestamp = Annotated[str, Field(pattern=r"^\d{1,12}\.\d{6}$")]
Text = Annotated[str, Field(min_length=1, max_length=40_000)]  # what is longer Slack cuts off


def escape(text: str) -> str:
    """*text* as Slack shows it literally: otherwise a title with `<!channel>` calls everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def link(url: str, text: str) -> str:
    """A link in Slack's mrkdwn."""
    return f"<{escape(url)}|{escape(text)}>"


class Message(Result):
    channel: str  # its id, even if a name was given
    ts: str  # identifies the message within the channel


class _Answer(BaseModel):
    ok: bool
    error: str = ""


class SlackAction(Action[R], Generic[R]):
    """What all of Slack's actions share: the meaning of an answer."""

    def judge(self, response: Response) -> Judgement:
        by_status = judge_status(response, effect=self.facts.effect)
        if by_status.verdict is not Verdict.SUCCESS:
            return by_status
        unsure = Verdict.RETRY if self.facts.effect is Effect.READ else Verdict.UNKNOWN
        try:
            answer = _Answer.model_validate_json(response.body)
        except ValidationError:
            return Judgement(verdict=unsure, reason=f"status {response.status}, but the body does not say ok")
        if answer.ok:
            return by_status
        reason = f"slack says {error_name(answer.error) if answer.error else 'no'}"
        if answer.error in RATE_LIMITED:
            wait = retry_after(response.headers) or PACE
            return Judgement(verdict=Verdict.RETRY, reason=reason, retry_after=wait)
        if answer.error in TOKEN_REFUSED:
            return Judgement(verdict=Verdict.UNAUTHORIZED, reason=reason)
        if answer.error in MAYBE_DONE:
            return Judgement(verdict=unsure, reason=reason)
        return Judgement(verdict=Verdict.FAILED, reason=reason)


class PostMessage(SlackAction[Message]):
    """Post a message, or with `thread` a reply.

    With chat:write alone nothing can be read back, so an attempt without an answer waits for a person.
    """

    facts = Facts(
        provider="slack",
        scopes=frozenset({"chat:write"}),
        effect=Effect.WRITE,
        attribution=False,
        recovery=Recovery.ASK,
        endpoints=EndpointClass(name="chat.postMessage", per=Per.TENANT),
    )
    result = Message

    channel: Channel
    text: Text  # mrkdwn: pass what others wrote through `escape`
    thread: Timestamp | None = None

    def request(self, call: Call) -> Request:
        body: dict[str, str | bool] = {"channel": self.channel, "text": self.text, "unfurl_links": False}
        if self.thread is not None:
            body["thread_ts"] = self.thread
        return Request(method="POST", path="/chat.postMessage", json=body)

    def read(self, response: Response) -> Message:
        return parse(response, Message)

    def external_id(self, result: Message) -> str:
        return f"{result.channel}:{result.ts}"
