"""Salesforce's REST API: opportunities (developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest).

The organization decides when a session ends; a 401 INVALID_SESSION_ID then leads to a token refresh and a retry. Errors
come as a list of `errorCode`s.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pipeline.action import (
    Action,
    Call,
    Effect,
    EndpointClass,
    Facts,
    Judgement,
    Left,
    Limits,
    Per,
    R,
    Recovery,
    Request,
    Response,
    Result,
    Verdict,
    judge_status,
    retry_after,
)
from pipeline.reading import error_name, parse

# A version is served for years, and every organization serves all of them.
ROWS = "/services/data/v62.0/sobjects/Opportunity"

# https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm: nothing was done
LATER = frozenset({"REQUEST_LIMIT_EXCEEDED", "SERVER_UNAVAILABLE", "UNABLE_TO_LOCK_ROW", "TXN_SECURITY_METERING_ERROR"})

# All requests of an organization in a rolling 24-hour window: used-up requests come back gradually.
API = EndpointClass(name="api", per=Per.TENANT)
LOOKED_AT_AGAIN = timedelta(minutes=15)
_USAGE = re.compile(r"api-usage=(\d{1,12})/(\d{1,12})")

Id = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9]{15}([A-Za-z0-9]{3})?$",
        description="the opportunity's id, of 15 or 18 characters, as 006Dn000002QZ1b",
    ),
]
Stage = Annotated[
    str, Field(min_length=1, max_length=255, description="a stage as it is named there, as Negotiation/Review")
]
NextStep = Annotated[str, Field(max_length=255)]


def _with_a_colon(value: object) -> object:
    # Salesforce writes 2026-03-01T09:00:00.000+0000; Python's ISO 8601 parser wants +00:00 or Z.
    return f"{value[:-5]}Z" if isinstance(value, str) and value.endswith("+0000") else value


Moment = Annotated[datetime, BeforeValidator(_with_a_colon)]


class Opportunity(Result):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    id: str = Field(alias="Id")
    name: str = Field(alias="Name")
    stage: str = Field(alias="StageName")
    amount: float | None = Field(alias="Amount")
    next_step: str | None = Field(alias="NextStep")
    owner_id: str = Field(alias="OwnerId")
    modified_at: Moment = Field(alias="LastModifiedDate")


class Updated(Result):
    id: str


class _Error(BaseModel):
    errorCode: str = ""  # noqa: N815  (Salesforce's name)


class _Errors(BaseModel):
    errors: list[_Error]


class SalesforceAction(Action[R]):
    """Base of Salesforce's actions: the meaning of a response, and its usage header."""

    def judge(self, response: Response) -> Judgement:
        by_status = judge_status(response, effect=self.facts.effect)
        if by_status.verdict is Verdict.SUCCESS:
            return by_status
        codes = _codes(response)
        if not codes:
            return by_status
        reason = f"salesforce says {', '.join(sorted(map(error_name, codes)))}"
        if "INVALID_SESSION_ID" in codes:
            return Judgement(verdict=Verdict.UNAUTHORIZED, reason=reason)
        if codes <= LATER:
            return Judgement(verdict=Verdict.RETRY, reason=reason, retry_after=retry_after(response.headers))
        return replace(by_status, reason=reason)

    def limits(self, response: Response) -> Limits:
        # developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers_api_usage.htm
        usage = _USAGE.search(response.headers.get("sforce-limit-info", ""))
        if usage is None:
            return Limits()
        used, limit = int(usage[1]), int(usage[2])
        return Limits(left=Left(remaining=max(0, limit - used), limit=limit, resets_in=LOOKED_AT_AGAIN))


def _codes(response: Response) -> set[str]:
    try:
        listed = _Errors.model_validate_json(b'{"errors":' + response.body + b"}")
    except ValidationError:
        return set()
    return {error.errorCode for error in listed.errors if error.errorCode}


def _facts(effect: Effect, *, attribution: bool) -> Facts:
    # `api` is the only scope for rows: the person's own profile decides what they may see and change.
    return Facts(
        provider="salesforce",
        scopes=frozenset({"api"}),
        effect=effect,
        attribution=attribution,
        recovery=Recovery.IDEMPOTENT,
        endpoints=API,
    )


class GetOpportunity(SalesforceAction[Opportunity]):
    """Read an opportunity, including when it was last changed."""

    facts = _facts(Effect.READ, attribution=False)

    id: Id

    def request(self, call: Call) -> Request:
        names = ",".join(str(field.alias) for field in Opportunity.model_fields.values())
        return Request(method="GET", path=f"{ROWS}/{self.id}", params={"fields": names})

    def read(self, response: Response) -> Opportunity:
        return parse(response, Opportunity)


class UpdateOpportunity(SalesforceAction[Updated]):
    """Set an opportunity's stage, and its amount and next step if they are given. Its history names who did it.

    Repeating it changes nothing.
    """

    facts = _facts(Effect.WRITE, attribution=True)

    id: Id
    stage: Stage
    amount: float | None = Field(
        default=None, ge=0, description="the whole amount, in the opportunity's currency; left out: as it is"
    )
    next_step: NextStep | None = Field(default=None, description="plain text; left out: as it is")

    def request(self, call: Call) -> Request:
        given = {"StageName": self.stage, "Amount": self.amount, "NextStep": self.next_step}
        fields = {name: value for name, value in given.items() if value is not None}
        return Request(method="PATCH", path=f"{ROWS}/{self.id}", json=fields)

    def read(self, response: Response) -> Updated:
        return Updated(id=self.id)  # the response is 204, without a body

    def external_id(self, result: Updated) -> str:
        return result.id
