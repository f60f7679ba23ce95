"""What an event, a configuration, an action or a result holds is stored and read back by any process, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    Secret,
    SecretStr,
    TypeAdapter,
    ValidationError,
    computed_field,
    create_model,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypeAliasType

from identity.errors import BadInput
from pipeline.authoring.action_checks import check_action
from pipeline.desk.workflows import checked_config
from pipeline.fields import misfitting
from pipeline.workflow import Event, Trigger, workflow
from tests.tasks.sound_action import Made, Make


class Aliased(BaseModel):
    deal: str = Field(alias="dealId")


class Generated(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)

    deal_id: str


class Written(BaseModel):
    deal: str = Field(serialization_alias="dealId")


class WrittenByAlias(Written):
    model_config = ConfigDict(serialize_by_alias=True)


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def deal(self) -> str:
        return "d-1"


class ByName(Aliased, Written):
    model_config = ConfigDict(populate_by_name=True)


class ByAlias(Aliased):
    model_config = ConfigDict(serialize_by_alias=True)


class SameName(BaseModel):
    deal: str = Field(alias="deal")


class OneOfSeveral(BaseModel):
    deal: str = Field(validation_alias=AliasChoices("dealId", "deal"))


class OneOfOthers(BaseModel):
    deal: str = Field(validation_alias=AliasChoices("dealId", AliasPath("deal", 0)))


class WrittenAndRead(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)

    deal: str = Field(validation_alias=AliasChoices("deal", "dealId"), serialization_alias="dealId")


class ByNameAlone(BaseModel):
    model_config = ConfigDict(validate_by_alias=False)

    deal: str = Field(alias="dealId")


class WrittenByAliasReadByName(ByNameAlone):
    model_config = ConfigDict(serialize_by_alias=True)


@pydantic_dataclass
class AliasedDataclass:
    deal: str = Field(alias="dealId")


class OfAnAliasedDataclass(BaseModel):
    of: AliasedDataclass


class Hidden(BaseModel):
    token: SecretStr


class HiddenToo(BaseModel):
    tokens: dict[str, Secret[int] | None] = {}


class Pair(NamedTuple):
    token: SecretStr
    name: str


class HiddenInATuple(BaseModel):
    of: Pair


class Excluded(BaseModel):
    token: str = Field(default="", exclude=True)


@pydantic_dataclass
class ExcludedOfADataclass:
    token: str = Field(default="", exclude=True)


class OfAnExcluded(BaseModel):
    of: ExcludedOfADataclass


# A recursive alias, as `type Json = dict[str, Json] | str` makes one from Python 3.12 on.
Json = TypeAliasType("Json", str)
vars(Json)["__value__"] = dict[str, Json] | str


class Recursive(BaseModel):
    deal: Json


T = TypeVar("T")
Twice = TypeAliasType("Twice", tuple[T, T], type_params=(T,))


class HiddenInAnAlias(BaseModel):
    token: Twice[SecretStr]


KEPT: list[type[BaseModel]] = [
    Written,
    ByName,
    ByAlias,
    SameName,
    OneOfSeveral,
    WrittenAndRead,
    ByNameAlone,
    Recursive,
]
UNREAD: list[type[BaseModel]] = [
    Aliased,
    Generated,
    WrittenByAlias,
    Computed,
    OneOfOthers,
    WrittenByAliasReadByName,
    OfAnAliasedDataclass,
]
UNKEPT: list[tuple[type[BaseModel], str]] = [
    (Hidden, "provider connections"),
    (HiddenToo, "provider connections"),
    (HiddenInATuple, "provider connections"),
    (HiddenInAnAlias, "provider connections"),
    (Excluded, "excluded"),
    (OfAnExcluded, "excluded"),
]


def _act(run: Any, event: Any) -> None:
    """What it would do does not matter here."""


def configured(config: type[BaseModel]) -> None:
    workflow(agent="a", name="mine", uses={}, config=config)(_act)


def told(of: type[BaseModel]) -> None:
    event = create_model("Told", __base__=Event, of=(of, ...))
    trigger = Trigger(source="github", event="issues", read=event.model_validate)
    workflow(agent="a", name="mine", uses={}, event=event, on=trigger)(_act)


class Least(BaseModel):
    amount: float


class Infinite(BaseModel):
    least: Least


def test_a_configuration_that_json_cannot_hold_is_refused_before_it_is_stored() -> None:
    declared = workflow(agent="a", name="mine", uses={}, config=Infinite)(_act)
    assert checked_config(declared, {"least": {"amount": "1.5"}}) == {"least": {"amount": 1.5}}
    with pytest.raises(BadInput, match="no configuration of mine: JSON cannot hold it"):
        checked_config(declared, {"least": {"amount": "Infinity"}})


def asked(of: type[BaseModel]) -> None:
    check_action(create_model("Asked", __base__=Make, __module__=__name__, of=(list[of], ...)))  # type: ignore[valid-type]


def answered(of: type[BaseModel]) -> None:
    result = create_model("Answered", __base__=Made, of=(tuple[of, ...], ()))  # type: ignore[valid-type]
    check_action(type("Answering", (Make,), {"__module__": __name__, "result": result}))


@pytest.mark.parametrize("declare", [configured, told, asked, answered])
def test_what_would_not_be_read_back_as_it_was_written_is_refused(declare: Callable[[type[BaseModel]], None]) -> None:
    for model in UNREAD:
        with pytest.raises(TypeError, match=r"\.deal.* is stored under a name that it is not read by"):
            declare(model)
    for model, says in UNKEPT:
        with pytest.raises(TypeError, match=rf"\.token.*{says}"):
            declare(model)
    for model in KEPT:
        declare(model)
        stored = model(**{"dealId" if model is ByAlias else "deal": "d"}).model_dump(mode="json")
        assert "d" in stored.values()
        assert model.model_validate(stored).model_dump(mode="json") == stored


def test_fields_that_do_not_fit_are_named_once_and_counted_and_quote_nothing() -> None:
    model = create_model("Many", **dict.fromkeys("abcdefg", (int | bytes, ...)))  # type: ignore[call-overload]
    with pytest.raises(ValidationError) as fault:
        model.model_validate({name: ["canary"] for name in "abcdefg"})
    assert misfitting(fault.value) == "a.int, a.bytes, b.int, b.bytes, c.int and 9 more"
    assert misfitting(fault.value, at=("of",), most=1) == "of.a.int and 13 more"
    assert misfitting(fault.value, most=None).endswith(", g.bytes")
    with pytest.raises(ValidationError) as fault:
        TypeAdapter(int).validate_python("canary")
    assert misfitting(fault.value) == "it"
