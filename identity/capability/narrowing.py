"""Narrowing: what may be asked in exchange for a capability. A pure function, which only ever takes away."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from identity.capability.model import DEEPEST, Audience
from identity.capability.verifier import Capability, Limit

_PLAIN = re.compile(r"[A-Za-z0-9._~!$&'()*+,=:@-]+")  # RFC 3986 §3.3, without what is encoded and without `;`


class TooWide(StrEnum):
    """Why an exchange is not made: what is asked for is more than the capability has."""

    TARGET = "target"  # this audience may not pass anything on to that one
    TENANT = "tenant"  # the target is another tenant's
    APPROVED = "approved"  # people approved one request, and this would be another, which nobody was shown
    DEPTH = "depth"  # the chain of actors is as long as it may be
    ACTION = "action"
    RESOURCE = "resource"
    AMOUNT = "amount"
    CURRENCY = "currency"
    LIFETIME = "lifetime"  # nothing is left of it


@dataclass(frozen=True, kw_only=True)
class Narrower:
    """What is asked for; None: the same as there was."""

    request_sha256: str  # of the one request that the new one is for
    action: str | None = None
    resource: str | None = None
    limit: Limit | None = None
    lifetime: timedelta | None = None


def narrow(
    given: Capability, asked: Narrower, *, by: Audience, target: Audience, id: str, now: datetime
) -> Capability | TooWide:
    """The capability *id* for *target*, which *by* acts with; or what of it would be wider than *given*.

    Tenant, subject, job, step and action stay as they are; *by* becomes the actor in front.
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
        return TooWide.AMOUNT  # a capability without a limit moves no amount, so neither does a narrower one
    return None if asked.limit.currency == given.limit.currency else TooWide.CURRENCY


def _is_within(resource: str, whole: str) -> bool:
    """Whether it is the same, or a part of it: `invoices/7/lines/2` of `invoices/7`. A path that goes up is neither.

    Nor is one that goes up once a service has read it its way: `%2e%2e`, `..\\`, `..;` and wide dots do, at some.
    """
    if resource == whole:
        return True
    if not resource.startswith(f"{whole}/"):
        return False
    below = resource.removeprefix(f"{whole}/").split("/")
    return all(_PLAIN.fullmatch(part) and part not in (".", "..") for part in below)
