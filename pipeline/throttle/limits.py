"""How upstreams limit requests: which of them are counted together, and what an answer says is left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

LONGEST_WAIT = timedelta(days=1)  # whoever was told to wait for longer asks again by then: it may have been a mistake


class Per(StrEnum):
    """Whose requests an upstream counts together, through one provider connection."""

    ACCOUNT = "account"  # each user's, and each installation's, by themselves
    TENANT = "tenant"  # a workspace's, whoever asks


@dataclass(frozen=True, kw_only=True)
class EndpointClass:
    """Endpoints that draw on one budget. The name is a metric's label: of a closed set."""

    name: str
    per: Per = Per.ACCOUNT


@dataclass(frozen=True, kw_only=True)
class Left:
    """What an answer says of its window: *remaining* of *limit* requests, until it is full again in *resets_in*."""

    remaining: int
    limit: int
    resets_in: timedelta


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one answer says of limits. *whole*: a pause it asks for is the account's, for every class (GitHub's
    secondary limits).
    """

    left: Left | None = None
    whole: bool = False
