"""What an event, a configuration, an action or a result holds is stored and read back by any process, or is refused."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Required

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from identity.model import Effect
from pipeline.action import Action, Call, Facts, Recovery, Request, Response, Result, check_action


class Made(Result):
    id: str


class Make(Action[Made]):
    """A sound action."""

    facts: ClassVar[Facts] = Facts(
        provider="example", scopes=frozenset(), effect=Effect.WRITE, attribution=False, recovery=Recovery.ASK
    )
    result: ClassVar[type[Result]] = Made

    def request(self, call: Call) -> Request:
        return Request(method="POST", path="/")

    def read(self, response: Response) -> Made:
        return Made(id="1")


def refused(action: Any) -> str:
    """Why it is refused."""
    with pytest.raises(TypeError) as fault:
        check_action(action)
    return str(fault.value)


class Tagged(BaseModel):
    tags: frozenset[str]


@dataclass(frozen=True)
class Listed:
    tags: set[str]


class Typed(TypedDict):
    tags: Required[set[str]]


class OfASet(Make):
    tags: frozenset[str]


class OfAnySet(Make):
    tags: AbstractSet[str] | None = None


class OfANestedSet(Make):
    of: dict[str, Annotated[list[Tagged], Field(min_length=1)]]


class OfADataclass(Make):
    of: tuple[Listed, ...]


class OfATypedDict(Make):
    of: Typed | None


@pytest.mark.parametrize("action", [OfASet, OfAnySet, OfANestedSet, OfADataclass, OfATypedDict])
def test_an_action_whose_parameters_have_no_order_is_refused(action: type[Action[Any]]) -> None:
    assert "tags is a set, which has no order" in refused(action)
    check_action(Make)
