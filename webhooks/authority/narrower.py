"""Reads what a token exchange asks for from its parameters (RFC 8693 §2.1, RFC 9396 §2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from identity.capability.narrowing import Narrower
from identity.capability.verifier import DETAIL, Limit
from pipeline.fields import misfitting
from webhooks.authority.oauth import Code, OAuthError, needed

JWT = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a type's name, not a token
_HASH = re.compile(r"[0-9a-f]{64}")


class _Limit(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    amount: Annotated[str, Field(pattern=r"^[0-9]{1,15}(\.[0-9]{1,6})?$")]
    currency: Annotated[str, Field(min_length=1, max_length=16)]


class _Detail(BaseModel):
    """The single authorization_details entry. Unknown fields are refused: they might have been meant to restrict."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["aswhom_action"]
    actions: Annotated[list[str], Field(min_length=1, max_length=1)] | None = None
    locations: list[str] | None = None
    # No NUL: it is stored.
    identifier: Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")] | None = None
    limit: _Limit | None = None


_DETAILS = TypeAdapter(Annotated[list[_Detail], Field(min_length=1, max_length=1)])
assert DETAIL == "aswhom_action"  # noqa: S101 - a Literal cannot name it


def read(given: Mapping[str, str], *, target: str) -> Narrower:
    """Return what is asked for. Raises OAuthError."""
    request_sha256 = needed(given, "request_sha256")
    if not _HASH.fullmatch(request_sha256):
        raise OAuthError(Code.INVALID_REQUEST, "request_sha256 should be SHA-256 in lower-case hex")
    lifetime = given.get("lifetime")
    if lifetime is not None and not re.fullmatch(r"[1-9][0-9]{0,5}", lifetime):
        raise OAuthError(Code.INVALID_REQUEST, "lifetime should be a whole number of seconds")
    detail = _detail(given.get("authorization_details"))
    if detail is not None and detail.locations not in (None, [target]):
        raise OAuthError(Code.INVALID_DETAILS, "locations should be the audience that is asked for")
    limit = detail.limit if detail else None
    return Narrower(
        request_sha256=request_sha256,
        action=detail.actions[0] if detail and detail.actions else None,
        resource=detail.identifier if detail else None,
        limit=Limit(amount=Decimal(limit.amount), currency=limit.currency) if limit else None,
        lifetime=timedelta(seconds=int(lifetime)) if lifetime else None,
    )


def _detail(text: str | None) -> _Detail | None:
    if text is None:
        return None
    try:
        (detail,) = _DETAILS.validate_json(text)
    except ValidationError as error:
        where = misfitting(error, whole="the whole")
        raise OAuthError(Code.INVALID_DETAILS, f"authorization_details cannot be used: look at {where}") from None
    return detail
