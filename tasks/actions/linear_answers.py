"""Meaning of Linear's responses: errors are 200 or 400 with `errors[].extensions`, and a rate limit is a 400 as well.

The kinds are those of `extensions.type` in Linear's own SDK (linear/linear, packages/sdk/src/error.ts); `code` has the
same in capitals. An unknown kind never counts as a refusal of a write: its effect is looked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta

from pydantic import BaseModel, ValidationError, field_validator

from pipeline.action import Effect, Judgement, Left, Limits, Response, Verdict, judge_status, retry_after
from pipeline.reading import count, error_name, quoted, sentence, wait_until

# Nothing was done, and a retry would be refused again.
REFUSALS = frozenset(
    {
        "bad user input",
        "feature not accessible",
        "forbidden",
        "graphql error",
        "graphql validation failed",
        "input error",
        "invalid input",
        "usage limit exceeded",
        "user error",
    }
)

# A duplicate id differs from other bad input only by its words. An earlier attempt did it, so the probe should adopt
# it.
DUPLICATE = re.compile(r"already exists|conflict on insert|duplicate|unique constraint", re.IGNORECASE)


class _Extensions(BaseModel):
    type: str = ""
    code: str = ""
    userPresentableMessage: str = ""  # noqa: N815  (Linear's name)

    @field_validator("*", mode="before")
    @classmethod
    def _text(cls, value: object) -> str:
        """Ignore a field that is not text: it must not hide the others."""
        return value if isinstance(value, str) else ""


class _Error(BaseModel):
    message: str = ""
    extensions: _Extensions = _Extensions()

    @field_validator("message", mode="before")
    @classmethod
    def _text(cls, value: object) -> str:
        return value if isinstance(value, str) else ""

    @field_validator("extensions", mode="before")
    @classmethod
    def _object(cls, value: object) -> object:
        return value if isinstance(value, dict) else {}

    @property
    def kinds(self) -> set[str]:
        named = (self.extensions.type, self.extensions.code)
        return {name.lower().replace("_", " ") for name in named if name}

    @property
    def words(self) -> str | None:
        """Return Linear's message for the user, if it is plain words; `message` may quote what it was sent."""
        return sentence(self.extensions.userPresentableMessage)

    @property
    def is_duplicate(self) -> bool:
        return bool(DUPLICATE.search(f"{self.message} {self.extensions.userPresentableMessage}"))


class _Answer(BaseModel):
    data: dict[str, object] | None = None
    errors: list[_Error] | None = None


def judge_answer(response: Response, *, effect: Effect) -> Judgement:
    unsure = Verdict.RETRY if effect is Effect.READ else Verdict.UNKNOWN
    by_status = judge_status(response, effect=effect)
    try:
        answer = _Answer.model_validate_json(response.body)
    except ValidationError:
        if by_status.verdict is Verdict.SUCCESS or response.status == 400:  # Linear's errors come as either
            return Judgement(verdict=unsure, reason=f"status {response.status}, but the body is no GraphQL answer")
        return by_status
    if not answer.errors:
        return by_status
    kinds = set().union(*(error.kinds for error in answer.errors))
    reason = f"linear says: {', '.join(sorted({*map(error_name, kinds)})) or 'an error of no kind'}"
    if any((answer.data or {}).values()):
        return Judgement(verdict=unsure, reason=f"{reason}, beside data")  # partly done
    if "ratelimited" in kinds:
        return Judgement(verdict=Verdict.RETRY, reason=reason, retry_after=_wait(response.headers))
    if "authentication error" in kinds:
        return Judgement(verdict=Verdict.UNAUTHORIZED, reason=reason)
    if any(error.is_duplicate for error in answer.errors):
        return Judgement(verdict=Verdict.UNKNOWN, reason="linear says that the id is taken: an earlier attempt did it")
    if all(error.kinds & REFUSALS for error in answer.errors):
        words = (quoted(said) for error in answer.errors if (said := error.words))
        return Judgement(verdict=Verdict.FAILED, reason="; ".join([reason, *dict.fromkeys(words)]))
    if by_status.verdict in (Verdict.UNAUTHORIZED, Verdict.RETRY):
        return by_status
    return Judgement(verdict=unsure, reason=reason)


def limits(response: Response) -> Limits:
    """Return what is left of the tighter of two budgets: requests and complexity (linear.app/developers/rate-limiting).

    The complexity left is scaled to the requests' limit, since the throttle counts each call as one. It is not
    converted to calls of this response's cost (`X-Complexity`): one expensive call would then hold back all the cheap
    ones.
    """
    requests, complexity = (_left(response.headers, budget) for budget in ("requests", "complexity"))
    if requests is not None and complexity is not None:
        share = complexity.remaining * requests.limit // complexity.limit
        complexity = replace(complexity, remaining=share, limit=requests.limit)
    found = [one for one in (requests, complexity) if one is not None]
    return Limits(left=min(found, key=lambda one: one.remaining, default=None))


def _left(headers: Mapping[str, str], budget: str) -> Left | None:
    remaining, limit, reset = (
        _number(headers, f"x-ratelimit-{budget}-{name}") for name in ("remaining", "limit", "reset")
    )
    if remaining is None or not limit or reset is None:
        return None
    resets_in = wait_until(_seconds(reset), headers)
    return None if resets_in is None else Left(remaining=remaining, limit=limit, resets_in=resets_in)


def _number(headers: Mapping[str, str], name: str) -> int | None:
    return count(headers.get(name, ""), digits=14)  # a reset is in milliseconds


def _seconds(moment: int) -> float:
    """Convert to seconds. Documented as milliseconds; the SDK's comment says a Unix timestamp. No date fits both."""
    return moment / 1000 if moment > 100_000_000_000 else moment


def _wait(headers: Mapping[str, str]) -> timedelta | None:
    """Return the time until the exhausted budget resets; Linear has one for requests and one for complexity."""
    named = retry_after(headers)
    if named is not None:
        return named
    waits = (wait_until(moment, headers) for moment in _resets(headers))
    return max((wait for wait in waits if wait is not None), default=None)


def _resets(headers: Mapping[str, str]) -> Iterable[float]:
    for budget in ("requests", "complexity"):
        if headers.get(f"x-ratelimit-{budget}-remaining") != "0":
            continue
        reset = _number(headers, f"x-ratelimit-{budget}-reset")
        if reset is not None:
            yield _seconds(reset)
