"""Rate limits of upstreams: the requests counted together, and the remainder stated by an answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

LONGEST_WAIT = timedelta(days=1)  # cap on any wait an upstream asks for, in case it was a mistake


class Per(StrEnum):
    """The scope in which an upstream counts requests together, through one provider connection."""

    ACCOUNT = "account"  # each user and each installation separately
    TENANT = "tenant"  # a workspace, for all its users together


@dataclass(frozen=True, kw_only=True)
class EndpointClass:
    """Endpoints that share one budget. The name is a metric's label, so it comes from a closed set."""

    name: str
    per: Per = Per.ACCOUNT


@dataclass(frozen=True, kw_only=True)
class Left:
    """The window as an answer states it: *remaining* of *limit* requests, full again in *resets_in*."""

    remaining: int
    limit: int
    resets_in: timedelta


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits stated by one answer.

    *whole*: a pause it asks for holds for all endpoint classes of the account (GitHub's secondary limits).
    """

    left: Left | None = None
    whole: bool = False
