"""GitHub's responses: the published shapes, as far as they are read here, and its rate limits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta

from pydantic import BaseModel, ValidationError

from pipeline.action import Judgement, Left, Limits, Response, UnreadableAnswer, Verdict, retry_after
from pipeline.reading import count, is_name, quoted, sentence, wait_until
from pipeline.workflow import ExternalUser

# docs.github.com/rest, "Rate limits for the REST API": without a header that says how long, at least a minute.
SECONDARY_LIMIT = timedelta(minutes=1)

# People suspend and unsuspend an installation. The signal parks the jobs of the installation's account.
SUSPENSION = timedelta(minutes=15)
_SUSPENDED = "installation has been suspended"

# Texts that mark a rate limit without a wait header; the second is used by older Enterprise Servers.
_LIMITED = (b"rate limit", b"abuse detection")
_TOO_QUICKLY = b"submitted too quickly"  # 422: nothing was created

# `issues=write; pull_requests=write`: docs.github.com/rest, "Troubleshooting the REST API".
_PERMISSIONS = re.compile(r"[a-z_]{1,40}=[a-z]{1,10}(?:[;,] ?[a-z_]{1,40}=[a-z]{1,10}){0,9}")


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


class WholeIssue(Issue):
    title: str
    state: str


class _Fault(BaseModel):
    resource: str = ""
    field: str = ""
    code: str = ""


class _Refusal(BaseModel):
    errors: list[_Fault]


def limits(response: Response) -> Limits:
    """Return what is left of the primary limit, and whether a secondary limit, which covers every endpoint, refused.

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
    """Judge a redirect: the resource was renamed or moved.

    docs.github.com/rest, "Best practices for using the REST API", "Follow redirects": a token and a body are not sent
    to an address that a response names, so the step fails with that reason instead.
    """
    if response.status not in (301, 307, 308):
        return None
    reason = f"status {response.status}: the repository was renamed or moved, and is asked for by its former name"
    return Judgement(verdict=Verdict.FAILED, reason=reason)


def suspended(response: Response) -> Judgement | None:
    """Judge a suspended installation: not a refusal of the request, since a person at GitHub can end the suspension."""
    if response.status != 403 or _SUSPENDED not in (_message(response) or "").lower():
        return None
    reason = "status 403: the app's installation is suspended"
    return Judgement(verdict=Verdict.SUSPENDED, reason=reason, retry_after=SUSPENSION)


def refused(response: Response) -> Judgement | None:
    """Judge a refusal, in words by which a person can fix it; None: the status says enough, or is no refusal."""
    if response.status not in (400, 403, 404, 410, 422, 451):
        return None
    headers = response.headers
    says = [f"status {response.status}"]
    if response.status == 404:
        says.append("it is not there, or not visible to this account")
    if (said := _message(response)) is not None:
        says.append(f"GitHub says: {quoted(said)}")
    if faults := _faults(response):
        says.append(", ".join(faults))
    if response.status in (403, 404) and _PERMISSIONS.fullmatch(
        wanted := headers.get("x-accepted-github-permissions", "")
    ):
        says.append(f"it takes the permission {wanted}, of the app as installed and of whoever it acts as")
    # the rest of the header is an address for that person only
    if headers.get("x-github-sso", "").startswith("required"):
        says.append("the organization wants its single sign-on: the person signs in there, and authorizes the app anew")
    return Judgement(verdict=Verdict.FAILED, reason="; ".join(says))


def _message(response: Response) -> str | None:
    """Return GitHub's message, if it is plain words: it may quote what it was sent."""
    try:
        match response.json():
            case {"message": str(said)} if said != "Not Found":
                return sentence(said)
    except UnreadableAnswer:
        pass
    return None


def _faults(response: Response) -> list[str]:
    """Return the faults GitHub found in the request, by GitHub's own names and without values.

    docs.github.com/rest, "Troubleshooting the REST API", "Validation failed": `resource`, `field`, `code`.
    """
    try:
        faults = _Refusal.model_validate(response.json()).errors
    except (UnreadableAnswer, ValidationError):
        return []
    told = (" ".join(part for part in (one.resource, one.field, one.code) if is_name(part)) for one in faults)
    return list(dict.fromkeys(filter(None, told)))[:5]


def rate_limited(response: Response) -> Judgement | None:
    """Judge a rate limit: GitHub sends 403 or 429 for one, and a plain 403 for a refusal."""
    if response.status == 422 and _TOO_QUICKLY in response.body.lower():
        reason = "status 422: too much was made in too short a time"
        return Judgement(verdict=Verdict.RETRY, reason=reason, retry_after=SECONDARY_LIMIT)
    if response.status not in (403, 429):
        return None
    wait = retry_after(response.headers)
    if wait is None and response.headers.get("x-ratelimit-remaining") == "0":
        wait = _resets_in(response.headers) or SECONDARY_LIMIT
    if wait is None and (response.status == 429 or any(word in response.body.lower() for word in _LIMITED)):
        wait = SECONDARY_LIMIT
    if wait is None:
        return None
    reason = f"status {response.status}: a rate limit is reached"
    return Judgement(verdict=Verdict.RETRY, reason=reason, retry_after=wait)


def _resets_in(headers: Mapping[str, str]) -> timedelta | None:
    reset = count(headers.get("x-ratelimit-reset", ""), digits=11)
    return None if reset is None else wait_until(reset, headers)
