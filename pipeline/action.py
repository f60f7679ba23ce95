"""Actions: typed upstream operations with declared facts and pure request and answer functions.

An action is a frozen pydantic model. It never sees a token, a socket or a clock: `request(call)` says what to send,
`judge(response)` says what the answer means, `read(response)` turns a success into the result. The one sender
(`pipeline.upstream`) adds the credential and the attempt's id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeGuard, TypeVar

from pydantic import BaseModel, ConfigDict

from identity.digests import json_digest
from identity.model import Effect
from identity.money import Money
from identity.oauth.lifetime import count
from pipeline.fields import check_kept, check_ordered
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
    "check_action",
    "hash_of",
    "is_action",
    "judge_status",
    "retry_after",
]


class Result(BaseModel):
    """What a done step returns; it is stored as JSON and read back on every run."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)  # JSON has none


R = TypeVar("R", bound=Result)


class Recovery(StrEnum):
    """How an attempt without an answer is resolved. Never by blind repetition."""

    IDEMPOTENT = "idempotent"  # repeat: twice is once
    KEYED = "keyed"  # repeat with the same idempotency key, while the upstream knows it (`key_kept`)
    CLIENT_ID = "client_id"  # we choose the id, the upstream refuses it twice: look it up, then send
    PROBE = "probe"  # search for our marker: adopt what is found, else send
    ASK = "ask"  # nothing can be looked up: park for an operator

    @property
    def searches(self) -> bool:
        """Whether what an attempt did can be looked up at the upstream."""
        return self in (Recovery.CLIENT_ID, Recovery.PROBE)

    @property
    def repeats(self) -> bool:
        """Whether an attempt may simply be made again: the upstream does it once."""
        return self in (Recovery.IDEMPOTENT, Recovery.KEYED)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What policy and recovery need to know about an action before it runs."""

    provider: str
    scopes: frozenset[str]
    effect: Effect
    attribution: bool  # must this be traceable to a person?
    recovery: Recovery
    capability: bool = False  # its upstream takes capability tokens, and no others
    endpoints: EndpointClass | None = None  # whose budget its requests draw on; None: no limit is known
    additive: bool = False  # does it add alone, and change nothing that is there? Who asks before it does goes by that
    key_kept: timedelta = timedelta(days=1)  # `keyed`: so long its upstream knows a key, from when it was sent first
    tool: bool = True  # may agents ask for it by the API? Not for what speaks in Aswhom's own name

    @property
    def repeats_for(self) -> timedelta | None:
        """How long after a call without an answer it may be made again; None: whenever, if its recovery repeats at all.

        A write whose key was forgotten would be done twice, so that ends well before.
        """
        keyed = self.recovery is Recovery.KEYED and self.effect is not Effect.READ
        return self.key_kept * 0.9 if keyed else None


@dataclass(frozen=True, kw_only=True)
class Call:
    """What makes the requests of one step recognisable: the same at every attempt to do the same."""

    idempotency_key: str  # H(job, step), and what is asked for once a replay may have changed that; hexadecimal
    client_id: str  # a UUID in version 4's form from the same hash, for upstreams that take ids
    marker: str  # an HTML comment that a probe can search for
    opened_at: datetime  # when it first opened, or opened for something else: a probe looks no further back


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request, relative to the provider connection's API URL."""

    method: str
    path: str
    params: Mapping[str, str | int | float] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, str | int | float] | None = None  # instead of `json`, where an upstream wants fields
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Response:
    """One whole HTTP answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; raises UnreadableAnswer."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:  # too deep, too: nothing that can be read
            raise UnreadableAnswer(f"the answer (status {self.status}) is not JSON") from error


class UnreadableAnswer(Exception):
    """An answer that says success but cannot be read, or a search that cannot tell: the effect stays unknown."""


class Verdict(StrEnum):
    """What an answer means for the attempt."""

    SUCCESS = "success"
    UNAUTHORIZED = "unauthorized"  # the token was refused; nothing was done, and nothing is revoked by it
    RETRY = "retry"  # nothing was done; try again, after `retry_after` if given
    SUSPENDED = "suspended"  # nothing was done: the provider holds the account back, until it says otherwise
    FAILED = "failed"  # nothing was done, and trying again will not help
    UNKNOWN = "unknown"  # it may have been done


@dataclass(frozen=True, kw_only=True)
class Judgement:
    verdict: Verdict
    reason: str = ""  # in words, without the body
    retry_after: timedelta | None = None


def retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Retry-After in seconds (RFC 9110 §10.2.3), a day at most; the date form is not used by the upstreams here."""
    seconds = count(headers.get("retry-after", ""))
    return None if seconds is None else min(timedelta(seconds=seconds), LONGEST_WAIT)


def judge_status(response: Response, *, effect: Effect) -> Judgement:
    """The meaning of a plain HTTP status: what most upstreams follow."""
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
    """The base of all actions. Subclasses set `facts` and `result`, and implement `request` and `read`.

    What raises NotImplementedError here is never reached: a workflow whose action lacks what its recovery mode needs,
    or has what its mode must not have, is refused when it is registered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    facts: ClassVar[Facts]
    result: ClassVar[type[Result]]

    @classmethod
    def action_name(cls) -> str:
        """`github.CreateIssue`: the provider and the class."""
        return f"{cls.facts.provider}.{cls.__name__}"

    def request(self, call: Call) -> Request:
        """What to send. Pure: the same call gives the same request."""
        raise NotImplementedError

    def judge(self, response: Response) -> Judgement:
        """What the answer means; override where an upstream answers errors with 200."""
        return judge_status(response, effect=self.facts.effect)

    def limits(self, response: Response) -> Limits:
        """What the answer says of the upstream's limits; a wait it asks for is `judge`'s `retry_after`."""
        return Limits()

    def read(self, response: Response) -> R:
        """The result of a success. May raise UnreadableAnswer."""
        raise NotImplementedError

    def probe(self, call: Call) -> Request:
        """The search that tells whether an earlier attempt had its effect (`probe` and `client_id` modes)."""
        raise NotImplementedError

    def found(self, response: Response, call: Call) -> R | None:
        """The result of the earlier attempt, or None: it had no effect. Raises UnreadableAnswer if it cannot tell.

        Asked only when `judge` calls the probe's answer a success.
        """
        raise NotImplementedError

    def external_id(self, result: R) -> str | None:
        """The upstream's id of what was made, for the audit."""
        return None

    def money(self) -> Money | None:
        """How much money it moves, which policies set limits on; None: none, or it is not known beforehand.

        In whichever direction: what comes back is not less than nothing. A Money that cannot be is BadInput, and the
        step is not opened.
        """
        return None

    def acts_on(self) -> str | None:
        """What it acts on, as a person would name it: who approves it reads this."""
        return None

    def resource(self) -> str | None:
        """What it acts on, as the upstream names it: `invoices/inv_7`. A capability is for that alone."""
        return None

    def confined_to(self) -> str | None:
        """The one repository, owner/name, that an installation's token for this is minted for; None: the account's."""
        return None

    def request_hash(self) -> str:
        """SHA-256 of the action and its parameters: what a replay, a once key and an approval are compared by."""
        return hash_of(self.action_name(), self.model_dump(mode="json"))


def hash_of(action: str, parameters: Mapping[str, Any]) -> str:
    """`request_hash` of an action by its name and its parameters as they are stored."""
    return json_digest({"action": action, "parameters": parameters})


def is_action(member: object) -> TypeGuard[type[Action[Any]]]:
    """Whether *member* is an action that can be carried out, and no base of some."""
    return (
        isinstance(member, type)
        and issubclass(member, Action)
        and hasattr(member, "facts")
        and hasattr(member, "result")
        and "[" not in member.__name__
    )


def check_action(action: Any) -> None:
    """Refuse a declaration that could not be carried out, or recovered. Raises TypeError."""
    if not (isinstance(action, type) and issubclass(action, Action)):
        raise TypeError(f"{action!r} is no action: it takes a class below Action")
    _check_sides(action)
    if hidden := sorted(action.model_fields.keys() & vars(Action).keys()):
        one = f"{action.__name__}.{hidden[0]}"
        raise TypeError(f"{one} hides what every action has by that name: call the field otherwise")
    check_ordered(action)
    check_kept(action)
    check_kept(action.result)
    for name in ("request", "read"):
        if getattr(action, name) is getattr(Action, name):
            raise TypeError(f"{action.action_name()} must define {name}()")
    searches = action.facts.recovery.searches
    for name in ("probe", "found"):
        if (getattr(action, name) is not getattr(Action, name)) != searches:
            rule = "must define" if searches else "must not define"
            raise TypeError(f"{action.action_name()} recovers by {action.facts.recovery}: it {rule} {name}()")


def _check_sides(action: type[Action[Any]]) -> None:
    """Its facts, and one word about its result: without them a call has its effect, and the run that made it dies."""
    for name, kind in (("facts", Facts), ("result", type)):
        if not isinstance(getattr(action, name, None), kind):
            raise TypeError(f"{action.__name__} needs {name}, as a ClassVar")
    if not issubclass(action.result, Result):
        raise TypeError(f"{action.__name__} needs result, a class below Result and not {action.result.__name__}")
    said = [one for base in action.__mro__ if issubclass(base, Action) for one in _type_arguments(base)]
    if said and not issubclass(action.result, said[0]):
        raise TypeError(
            f"{action.__name__} reads {said[0].__name__} by its class and {action.result.__name__} by its `result`"
        )


def _type_arguments(action: type[Action[Any]]) -> list[type]:
    """`Made` of `Action[Made]`; of a base that is generic in two results it cannot be told which one it is."""
    arguments = action.__pydantic_generic_metadata__["args"]
    results = [one for one in arguments if isinstance(one, type) and issubclass(one, Result)]
    return results if len(results) == 1 else []
