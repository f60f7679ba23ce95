"""What GitHub answers: the published shapes, as far as they are read here, and its rate limits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from pydantic import BaseModel

from identity.lifetime import count
from pipeline.action import Judgement, Response, Verdict, retry_after
from pipeline.limits import Left, Limits
from pipeline.workflow import ExternalUser
from tasks.actions.answers import wait_until

# docs.github.com/rest, "Rate limits for the REST API": without a header that says how long, at least a minute.
SECONDARY_LIMIT = timedelta(minutes=1)


class User(BaseModel):
    id: int
    login: str

    def external(self) -> ExternalUser:
        return ExternalUser(provider="github", id=str(self.id), login=self.login)


class Label(BaseModel):
    name: str


class Repository(BaseModel):
    full_name: str


class Base(BaseModel):
    repo: Repository


class Pull(BaseModel):
    number: int
    title: str
    html_url: str
    state: str
    draft: bool = False
    user: User | None
    created_at: datetime


class WholePull(Pull):
    merged: bool
    labels: list[Label]
    base: Base


class Comment(BaseModel):
    id: int
    html_url: str
    body: str = ""


class Issue(BaseModel):
    id: int
    number: int
    html_url: str
    body: str | None = None
    created_at: datetime


def limits(response: Response) -> Limits:
    """What is left of the primary limit, and whether a refusal is by a secondary one, which is of every endpoint.

    docs.github.com/rest, "Rate limits for the REST API": `x-ratelimit-reset` is in UTC epoch seconds.
    """
    headers = response.headers
    remaining, limit = (count(headers.get(f"x-ratelimit-{name}", "")) for name in ("remaining", "limit"))
    resets_in, left = _resets_in(headers), None
    if remaining is not None and limit is not None and resets_in is not None:
        left = Left(remaining=remaining, limit=limit, resets_in=resets_in)
    secondary = rate_limited(response) is not None and ("retry-after" in headers or remaining != 0)
    return Limits(left=left, whole=secondary)


def moved(response: Response) -> Judgement | None:
    """Whether what is asked for has another name now.

    docs.github.com/rest, "Best practices for using the REST API", "Follow redirects": a token and a body are not sent
    to an address that an answer names, so it is said instead.
    """
    if response.status not in (301, 307, 308):
        return None
    reason = f"status {response.status}: the repository was renamed or moved, and is asked for by its former name"
    return Judgement(verdict=Verdict.FAILED, reason=reason)


def rate_limited(response: Response) -> Judgement | None:
    """Whether a limit is reached: GitHub answers 403 or 429 then, and a plain 403 is a refusal."""
    if response.status not in (403, 429):
        return None
    wait = retry_after(response.headers)
    if wait is None and response.headers.get("x-ratelimit-remaining") == "0":
        wait = _resets_in(response.headers) or SECONDARY_LIMIT
    if wait is None and (response.status == 429 or b"rate limit" in response.body.lower()):
        wait = SECONDARY_LIMIT
    if wait is None:
        return None
    reason = f"status {response.status}: a rate limit is reached"
    return Judgement(verdict=Verdict.RETRY, reason=reason, retry_after=wait)


def _resets_in(headers: Mapping[str, str]) -> timedelta | None:
    """How long until the primary limit is full again."""
    reset = count(headers.get("x-ratelimit-reset", ""), digits=11)
    return None if reset is None else wait_until(reset, headers)
