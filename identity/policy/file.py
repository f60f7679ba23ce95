"""A tenant's policy file: TOML, validated against a schema and turned into rules."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from identity.errors import BadInput
from identity.model import Effect, PrincipalKind
from identity.money import Money
from identity.policy.rules import Allowance, ApprovalNeed, Names, Policy, Rule, TriggerKind, When

LONGEST = 100_000  # characters
_UNITS: Mapping[str, str] = {"m": "minutes", "h": "hours", "d": "days"}


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _money(value: object) -> object:
    if isinstance(value, Money) or value is None:
        return value
    if not isinstance(value, str):
        raise ValueError('write an amount as text: "5000 EUR"')  # noqa: TRY004 - pydantic turns a ValueError into a fault
    try:
        return Money.read(value)
    except BadInput as error:
        raise ValueError(str(error)) from error


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    written = re.fullmatch(r"([1-9][0-9]{0,4})([mhd])", value) if isinstance(value, str) else None
    if written is None:
        raise ValueError('write a duration as so many minutes, hours or days: "30m", "24h", "7d"')
    return timedelta(**{_UNITS[written[2]]: int(written[1])})


# The values as written in the file, for its JSON Schema: pydantic would describe the parsed values.
Text = Annotated[str, Field(min_length=1, max_length=200)]
_Texts = Annotated[list[Text], Field(min_length=1, max_length=50)]
_Effects = Annotated[list[Effect], Field(min_length=1)]
_Which = Literal["user", "service", "capability"]
_Whiches = Annotated[list[_Which], Field(min_length=1)]
_AmountText = Annotated[str, Field(pattern=r"^[0-9]{1,15}(\.[0-9]{1,6})? [A-Z]{3}$", examples=["5000 EUR"])]
_DurationText = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}[mhd]$", examples=["30m", "24h", "7d"])]

Patterns = Annotated[_Texts, BeforeValidator(_listed, json_schema_input_type=Text | _Texts)]
Effects = Annotated[_Effects, BeforeValidator(_listed, json_schema_input_type=Effect | _Effects)]
Amount = Annotated[Money, BeforeValidator(_money, json_schema_input_type=_AmountText)]
Lasting = Annotated[
    timedelta, BeforeValidator(_duration, json_schema_input_type=_DurationText), Field(le=timedelta(days=30))
]
Required = Annotated[_Whiches, BeforeValidator(_listed, json_schema_input_type=_Which | _Whiches)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class WhenText(_Strict):
    """The steps to which an entry applies: all given conditions must hold. Names may contain `*` and `?`."""

    action: Patterns | None = None
    provider: Patterns | None = None
    workflow: Patterns | None = None
    agent: Patterns | None = None
    effect: Effects | None = None
    trigger: TriggerKind | None = None


class ApprovalText(_Strict):
    """The people who must approve."""

    approvers: Annotated[list[Text], Field(min_length=1, max_length=100)]
    quorum: Annotated[int, Field(ge=1)] = 1
    expires_in: Annotated[Lasting, Field(json_schema_extra={"default": "24h"})] = timedelta(hours=24)
    held_keys_only: bool = False

    @model_validator(mode="after")
    def _can_be_met(self) -> ApprovalText:
        if len(set(self.approvers)) < self.quorum:
            raise ValueError(
                f"a quorum of {self.quorum} needs as many approvers, and {len(set(self.approvers))} are named"
            )
        return self


class RuleText(_Strict):
    """A restriction on the steps to which it applies."""

    name: Text
    when: WhenText = WhenText()
    above: Amount | None = None
    deny: Text | None = None
    require: Required | None = None
    max_amount: Amount | None = None
    approval: ApprovalText | None = None

    @model_validator(mode="after")
    def _says_something(self) -> RuleText:
        if not (self.deny or self.require or self.max_amount or self.approval):
            raise ValueError("a rule says deny, require, max_amount or approval")
        return self


class AllowText(_Strict):
    """High-risk actions that are permitted."""

    name: Text
    when: WhenText
    limit: Amount | None = None

    @model_validator(mode="after")
    def _names_the_action(self) -> AllowText:
        if self.when.action is None:
            raise ValueError("an [[allow]] names the actions it is about: when = { action = … }")
        return self


class PolicyText(_Strict):
    """The whole policy file."""

    format: Literal[1]
    rule: Annotated[list[RuleText], Field(max_length=200)] = []
    allow: Annotated[list[AllowText], Field(max_length=200)] = []

    @model_validator(mode="after")
    def _names_are_unique(self) -> PolicyText:
        names = [one.name for one in self.rule] + [one.name for one in self.allow]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two entries are named {', '.join(twice)}")
        return self


def digest_of(text: str) -> str:
    """Return the SHA-256 of the file, which identifies a version."""
    return sha256(text.encode()).hexdigest()


def read_policy(text: str, *, version: int = 0) -> Policy:
    """Parse *text* into a policy. Raises BadInput, which says where and why."""
    if len(text) > LONGEST:
        raise BadInput(f"the policy has more than {LONGEST} characters")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"the policy is not TOML: {error}") from error
    try:
        stated = PolicyText.model_validate(document)
    except ValidationError as error:
        raise BadInput("the policy cannot be used: " + "; ".join(_faults(error, document))) from error
    return Policy(
        version=version,
        digest=digest_of(text),
        rules=tuple(_rule(one) for one in stated.rule),
        allowances=tuple(Allowance(name=one.name, when=_when(one.when), limit=one.limit) for one in stated.allow),
    )


def _faults(error: ValidationError, document: Mapping[str, Any]) -> list[str]:
    found = error.errors(include_url=False, include_context=False)
    return [f"{_place(one['loc'], document)}: {one['msg'].removeprefix('Value error, ')}" for one in found]


def _place(loc: tuple[int | str, ...], document: Mapping[str, Any]) -> str:
    """Return the place in the file: an entry by its name, or by its position among its kind."""
    match loc:
        case (str(kind), int(index), *below):
            entry = document[kind][index]
            name = entry.get("name") if isinstance(entry, dict) else None
            which = f"{kind} {name[:200]!r}" if isinstance(name, str) else f"{kind} {index + 1}"
            # A list of one may be written as its member, without an index.
            return ", ".join(filter(None, (which, ".".join(one for one in below if isinstance(one, str)))))
        case _:
            return ".".join(map(str, loc)) or "file"


def _rule(stated: RuleText) -> Rule:
    required = set(stated.require or ())
    kinds = frozenset(PrincipalKind(one) for one in required - {"capability"})
    need = stated.approval
    return Rule(
        name=stated.name,
        when=_when(stated.when),
        above=stated.above,
        deny=stated.deny,
        kinds=kinds or None,
        capability="capability" in required,
        max_amount=stated.max_amount,
        approval=None
        if need is None
        else ApprovalNeed(
            rule=stated.name,
            quorum=need.quorum,
            approvers=frozenset(need.approvers),
            expires_in=need.expires_in,
            held_keys_only=need.held_keys_only,
        ),
    )


def _when(stated: WhenText) -> When:
    def names(patterns: list[str] | None) -> Names | None:
        return None if patterns is None else Names.of(patterns)

    return When(
        action=names(stated.action),
        provider=names(stated.provider),
        workflow=names(stated.workflow),
        agent=names(stated.agent),
        effect=None if stated.effect is None else frozenset(stated.effect),
        trigger=stated.trigger,
    )


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, for editors."""
    return PolicyText.model_json_schema()
