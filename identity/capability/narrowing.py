"""Narrowing: computes the capability given in exchange for another. Pure; it can only reduce permissions."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from identity.capability.model import DEEPEST, Audience
from identity.capability.verifier import Capability, Limit

_PLAIN = re.compile(r"[A-Za-z0-9._~!$&'()*+,=:@-]+")  # RFC 3986 §3.3, without percent-encoding and `;`


class TooWide(StrEnum):
    """The reason for refusing an exchange: the request exceeds the capability."""

    TARGET = "target"  # the audience is not registered to pass tokens on to this target
    TENANT = "tenant"  # the target is another tenant's
    APPROVED = "approved"  # people approved one request; this is another, which nobody saw
    DEPTH = "depth"  # the chain of actors has its maximum length
    ACTION = "action"
    RESOURCE = "resource"
    AMOUNT = "amount"
    CURRENCY = "currency"
    LIFETIME = "lifetime"  # none is left


@dataclass(frozen=True, kw_only=True)
class Narrower:
    """The requested restrictions; None keeps the given value."""

    request_sha256: str  # of the one request that the new capability is for
    action: str | None = None
    resource: str | None = None
    limit: Limit | None = None
    lifetime: timedelta | None = None


def narrow(
    given: Capability, asked: Narrower, *, by: Audience, target: Audience, id: str, now: datetime
) -> Capability | TooWide:
    """Return the capability *id* for *target*, with *by* as the acting party; or why it would exceed *given*.

    Tenant, subject, job, step and action are unchanged; *by* becomes the first actor.
    """
    if too_wide := _prohibition(given, asked, by, target):
        return too_wide
    issued_at = now.replace(microsecond=0)
    wanted = given.expires_at if asked.lifetime is None else issued_at + asked.lifetime
    expires_at = min(given.expires_at, wanted.replace(microsecond=0))
    if expires_at <= issued_at:
        return TooWide.LIFETIME
    return replace(
        given,
        id=id,
        audience=target.uri,
        actors=(by.id, *given.actors),
        resource=asked.resource or given.resource,
        limit=asked.limit or given.limit,
        request_sha256=asked.request_sha256,
        issued_at=issued_at,
        expires_at=expires_at,
    )


def _prohibition(given: Capability, asked: Narrower, by: Audience, target: Audience) -> TooWide | None:
    if target.id not in by.passes_to:
        return TooWide.TARGET
    if target.tenant not in (None, given.tenant):
        return TooWide.TENANT
    if given.approved_by:
        return TooWide.APPROVED
    if len(given.actors) >= DEEPEST:
        return TooWide.DEPTH
    if asked.action not in (None, given.action):
        return TooWide.ACTION
    if asked.resource is not None and not _is_within(asked.resource, given.resource):
        return TooWide.RESOURCE
    if asked.limit is None:
        return None
    if given.limit is None or not 0 <= asked.limit.amount <= given.limit.amount:
        return TooWide.AMOUNT  # without a limit it allows no amount, and neither may a narrower one
    return None if asked.limit.currency == given.limit.currency else TooWide.CURRENCY


def _is_within(resource: str, whole: str) -> bool:
    """True if it is the same resource or a part of it, as `invoices/7/lines/2` of `invoices/7`.

    A path that goes up is neither, even if only some services read it that way: `%2e%2e`, `..\\`, `..;`, wide dots.
    """
    if resource == whole:
        return True
    if not resource.startswith(f"{whole}/"):
        return False
    below = resource.removeprefix(f"{whole}/").split("/")
    return all(_PLAIN.fullmatch(part) and part not in (".", "..") for part in below)
