"""Typed upstream operations: declared facts, and pure functions for the request and the answer.

An action is a frozen pydantic model. It never sees a token, a socket or a clock: `request(call)` builds what to send,
`judge(response)` interprets the answer, and `read(response)` turns a success into the result. `pipeline.upstream` is
the only sender; it adds the credential and the attempt's id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from identity.digests import json_digest
from identity.model import Effect
from identity.money import Money
from identity.oauth.lifetime import count
from pipeline.throttle.limits import LONGEST_WAIT, EndpointClass, Left, Limits, Per

__all__ = [
    "Action",
    "Call",
    "Effect",
    "EndpointClass",
    "Facts",
    "Judgement",
    "Left",
    "Limits",
    "Money",
    "Per",
    "R",
    "Recovery",
    "Request",
    "Response",
    "Result",
    "UnreadableAnswer",
    "Verdict",
    "hash_of",
    "judge_status",
    "retry_after",
]


class Result(BaseModel):
    """The return value of a finished step, stored as JSON and read back on every run."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)  # JSON has no NaN or infinity


R = TypeVar("R", bound=Result)


class Recovery(StrEnum):
    """Ways to resolve an attempt without an answer; none repeats it blindly."""

    IDEMPOTENT = "idempotent"  # repeat: doing it twice equals doing it once
    KEYED = "keyed"  # repeat with the same idempotency key, while the upstream remembers it (`key_kept`)
    CLIENT_ID = "client_id"  # we choose the id and the upstream rejects a duplicate: look it up, then send
    PROBE = "probe"  # search for our marker: adopt what is found, otherwise send
    ASK = "ask"  # nothing can be looked up: park for an operator

    @property
    def searches(self) -> bool:
        """True if the upstream can be searched for the effect of an attempt."""
        return self in (Recovery.CLIENT_ID, Recovery.PROBE)

    @property
    def repeats(self) -> bool:
        """True if an attempt may simply be repeated, because the upstream does it once."""
        return self in (Recovery.IDEMPOTENT, Recovery.KEYED)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts about an action that policy and recovery need before it runs."""

    provider: str
    scopes: frozenset[str]
    effect: Effect
    attribution: bool  # must this be traceable to a person?
    recovery: Recovery
    capability: bool = False  # the upstream takes capability tokens and no other
    endpoints: EndpointClass | None = None  # the rate budget that its requests draw on; None: no known limit
    # it only adds and changes nothing that exists; clients use this to decide whether to ask before calling
    additive: bool = False
    key_kept: timedelta = timedelta(days=1)  # KEYED: how long the upstream remembers a key, from its first use
    tool: bool = True  # whether agents may call it through the API; False for actions that speak in Aswhom's own name

    @property
    def repeats_for(self) -> timedelta | None:
        """Return how long a call without an answer may be repeated; None: always, if its recovery mode repeats at all.

        A write whose key the upstream has forgotten would be done twice, so this ends well before `key_kept` does.
        """
        keyed = self.recovery is Recovery.KEYED and self.effect is not Effect.READ
        return self.key_kept * 0.9 if keyed else None


@dataclass(frozen=True, kw_only=True)
class Call:
    """Identifiers that make a step's requests recognisable; the same for every attempt at the same request."""

    idempotency_key: str  # hex hash of job and step, and of the request if a replay may have changed it
    client_id: str  # a UUID in version 4's form from the same hash, for upstreams that take client-chosen ids
    marker: str  # an HTML comment that a probe can search for
    # when the step first opened, or first opened with a changed request: a probe looks no further back; not for a
    # `request`, which an approval is bound to before the step opens
    opened_at: datetime


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request, relative to the provider connection's API URL."""

    method: str
    path: str
    params: Mapping[str, str | int | float] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, str | int | float] | None = None  # instead of `json`, for upstreams that take form fields
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Response:
    """One complete HTTP answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON. Raises UnreadableAnswer."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:  # RecursionError: nested too deeply to be read
            raise UnreadableAnswer(f"the answer (status {self.status}) is not JSON") from error


class UnreadableAnswer(Exception):
    """A successful answer that cannot be read, or an inconclusive search: the effect stays unknown."""


class Verdict(StrEnum):
    """The meaning of an answer for the attempt."""

    SUCCESS = "success"
    UNAUTHORIZED = "unauthorized"  # the token was refused and nothing was done; this alone revokes nothing
    RETRY = "retry"  # nothing was done; try again, after `retry_after` if given
    SUSPENDED = "suspended"  # nothing was done; the provider has suspended the account until further notice
    FAILED = "failed"  # nothing was done, and trying again will not help
    UNKNOWN = "unknown"  # it may have been done


@dataclass(frozen=True, kw_only=True)
class Judgement:
    verdict: Verdict
    reason: str = ""  # in words, without the response body
    retry_after: timedelta | None = None


def retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Return Retry-After in seconds (RFC 9110 §10.2.3), capped at a day. The upstreams here never use the date form."""
    seconds = count(headers.get("retry-after", ""))
    return None if seconds is None else min(timedelta(seconds=seconds), LONGEST_WAIT)


def judge_status(response: Response, *, effect: Effect) -> Judgement:
    """Interpret a plain HTTP status by the conventions that most upstreams follow."""
    status = response.status
    if 200 <= status < 300:
        return Judgement(verdict=Verdict.SUCCESS)
    if status == 401:
        return Judgement(verdict=Verdict.UNAUTHORIZED, reason="401: the token was refused")
    if status in (429, 503):
        return Judgement(verdict=Verdict.RETRY, reason=f"status {status}", retry_after=retry_after(response.headers))
    if status >= 500 or status == 408:
        verdict = Verdict.RETRY if effect is Effect.READ else Verdict.UNKNOWN
        return Judgement(verdict=verdict, reason=f"status {status}")
    return Judgement(verdict=Verdict.FAILED, reason=f"status {status}")


class Action(BaseModel, Generic[R]):
    """The base of all actions. Subclasses name their result, as `Action[Made]`, set `facts`, and implement `request`
    and `read`.

    The methods that raise NotImplementedError are never reached: registering a workflow is refused if one of its
    actions lacks a method that its recovery mode needs, or defines one that its mode must not have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    facts: ClassVar[Facts]
    result: ClassVar[type[Result]]  # set by the type argument

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        if (named := named_result(cls)) is not None:
            cls.result = named

    @classmethod
    def action_name(cls) -> str:
        """Return the provider and the class, for example `github.CreateIssue`."""
        return f"{cls.facts.provider}.{cls.__name__}"

    def request(self, call: Call) -> Request:
        """Return the request to send. Pure: the same call gives the same request."""
        raise NotImplementedError

    def judge(self, response: Response) -> Judgement:
        """Interpret the answer. Override this where an upstream answers errors with 200."""
        return judge_status(response, effect=self.facts.effect)

    def limits(self, response: Response) -> Limits:
        """Return the rate limits that the answer states. A wait it asks for belongs in `judge`'s `retry_after`."""
        return Limits()

    def read(self, response: Response) -> R:
        """Return the result of a success. May raise UnreadableAnswer."""
        raise NotImplementedError

    def probe(self, call: Call) -> Request:
        """Return the search that finds the effect of an earlier attempt (PROBE and CLIENT_ID modes)."""
        raise NotImplementedError

    def found(self, response: Response, call: Call) -> R | None:
        """Return the result of the earlier attempt; None: it had no effect. Raises UnreadableAnswer if inconclusive.

        Called only when `judge` calls the probe's answer a success.
        """
        raise NotImplementedError

    def external_id(self, result: R) -> str | None:
        """Return the upstream's id of the thing made, for the audit."""
        return None

    def money(self) -> Money | None:
        """Return the amount of money moved, which policy limits; None: no money, or unknown beforehand.

        The direction does not matter: a refund counts as its positive amount. An invalid Money is BadInput, and the
        step is not opened.
        """
        return None

    def acts_on(self) -> str | None:
        """Return the target as a person would name it; approvers read this."""
        return None

    def resource(self) -> str | None:
        """Return the target as the upstream names it, such as `invoices/inv_7`; a capability covers only that."""
        return None

    def confined_to(self) -> str | None:
        """Return the one repository (owner/name) to mint an installation's token for; None: use the account's token."""
        return None

    def request_hash(self) -> str:
        """Return the SHA-256 of the action and its parameters, as compared by replays, once keys and approvals."""
        return hash_of(self.action_name(), self.model_dump(mode="json"))


def named_result(action: type[Action[Any]]) -> type[Result] | None:
    """Return Made for `Action[Made]`; None for other classes, and for arguments with two results: ambiguous."""
    arguments = action.__pydantic_generic_metadata__["args"]
    results = [one for one in arguments if isinstance(one, type) and issubclass(one, Result)]
    return results[0] if len(results) == 1 else None


def hash_of(action: str, parameters: Mapping[str, Any]) -> str:
    """Return the `request_hash` of an action, from its name and its stored parameters."""
    return json_digest({"action": action, "parameters": parameters})
