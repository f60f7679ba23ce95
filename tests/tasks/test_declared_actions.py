"""An action that could not be carried out, compared or described is refused."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, Required, TypeVar

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    create_model,
)
from typing_extensions import TypedDict

from pipeline.action import Action, Call, Facts, Request, Response, Result
from pipeline.authoring import tools
from pipeline.authoring.action_checks import check_action
from pipeline.authoring.registry import Registry
from tests.tasks.sound_action import Made, Make


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


class Named(NamedTuple):
    tags: frozenset[str]


class OfANamedTuple(Make):
    of: Named


@pytest.mark.parametrize("action", [OfASet, OfAnySet, OfANestedSet, OfADataclass, OfATypedDict, OfANamedTuple])
def test_an_action_whose_parameters_have_no_order_is_refused(action: type[Action[Any]]) -> None:
    assert "tags is a set, which has no order" in refused(action)
    check_action(Make)


class Other(Result):
    text: str


class NoFacts(Action[Made]):
    """It says nothing of itself."""


class NoResult(Action):  # type: ignore[type-arg]
    facts: ClassVar[Facts] = Make.facts


class FieldForResult(NoResult):
    result: type[Result] = Made  # type: ignore[misc]


class ModelForResult(Make):
    result = BaseModel  # type: ignore[assignment]


class AnotherResult(Make):
    result: ClassVar[type[Result]] = Other


P = TypeVar("P")
R = TypeVar("R", bound=Result)


class OfAPayload(Make, Generic[P]):
    """Generic in what it sends."""


class OfAText(OfAPayload[str]):
    """What it sends is no result."""


class OfBoth(Action[R], Generic[P, R]):
    """Generic in what it sends, too."""

    facts: ClassVar[Facts] = Make.facts


class BothByItsClass(OfBoth[str, Made]):
    """Its result is the one that its class names."""


class AnotherOfBoth(OfBoth[str, Made]):
    result: ClassVar[type[Result]] = Other


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (NoFacts, "NoFacts needs facts"),
        (NoResult, "NoResult needs result"),
        (FieldForResult, "FieldForResult needs result"),
        (ModelForResult, "ModelForResult needs result"),
        (AnotherResult, "reads Made by its class and Other by its `result`"),
        (AnotherOfBoth, "reads Made by its class and Other by its `result`"),
        (Made, "is no action"),
        ("github.Comment", "is no action"),
    ],
    ids=str,
)
def test_an_action_without_what_every_call_of_it_needs_is_refused(action: Any, says: str) -> None:
    assert says in refused(action)


def test_the_result_is_the_one_that_the_class_names() -> None:
    assert (Make.result, BothByItsClass.result) == (Made, Made)


def test_a_type_argument_that_is_no_result_says_nothing_of_it() -> None:
    check_action(OfAText)


class Opaque:
    """Nothing that JSON Schema could describe."""


class Unschemed(Make):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    of: Annotated[Opaque, PlainSerializer(lambda of: "")]


class ResultUnschemed(Result):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    of: Opaque


class UnschemedResult(Action[ResultUnschemed]):
    facts: ClassVar[Facts] = Make.facts

    def request(self, call: Call) -> Request:
        return Request(method="POST", path="/")

    def read(self, response: Response) -> ResultUnschemed:
        return ResultUnschemed(of=Opaque())


@pytest.mark.parametrize("action", [Unschemed, UnschemedResult])
def test_an_action_that_could_not_be_described_to_agents_is_refused(action: type[Action[Any]]) -> None:
    with pytest.raises(TypeError, match=f"{action.action_name()} cannot be described"):
        Registry([], [Make, action])


def _named(name: str, provider: str = "example") -> type[Action[Any]]:
    return type(name, (Make,), {"__module__": __name__, "facts": replace(Make.facts, provider=provider)})


@pytest.mark.parametrize(
    "action",
    [
        _named("M" + 55 * "a"),  # with example__, one character too many
        _named("Régler"),
        _named("Make", provider="my__crm"),
        _named("Make", provider="my_"),
        _named("Make", provider="my.crm"),
    ],
    ids=lambda action: action.action_name(),
)
def test_an_action_that_no_model_could_call_by_its_name_is_refused(action: type[Action[Any]]) -> None:
    with pytest.raises(TypeError, match=f"{action.action_name()} cannot be a tool"):
        Registry([], [Make, action])


@pytest.mark.parametrize(
    "action", [_named("M" + 54 * "a"), _named("_Make"), _named("Make__It", provider="my_crm")], ids=str
)
def test_an_action_is_found_by_the_name_that_models_are_told(action: type[Action[Any]]) -> None:
    registry = Registry([], [Make, action])
    for of in (Make, action):
        assert tools.named(registry, tools.for_anthropic(of)["name"]) is of


def test_an_action_whose_field_hides_what_every_action_answers_is_refused() -> None:
    with pytest.warns(UserWarning, match="shadows an attribute"):
        hiding = create_model("Hiding", __base__=Make, __module__=__name__, resource=(str, ""))
    assert "Hiding.resource hides what every action has by that name" in refused(hiding)
