"""Failures common to all pages for people: an unavailable ledger, HTTP errors, and internal faults."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from flask import Blueprint
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from identity.errors import Unavailable, Unconfirmed
from identity.sql.store import CommitUnknown
from webhooks import problems

log = logging.getLogger(__name__)


class What(Enum):
    """Kinds of failure, by what the reader can do about them."""

    LATER = auto()  # it cannot be done now
    UNCERTAIN = auto()  # it may have been done: look first
    REFUSED = auto()  # the request breaks the rules of HTTP
    FAULT = auto()  # the reader can do nothing: it is internal


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A failure, for a page to tell in its own words."""

    what: What
    status: int
    reason: str = ""  # why HTTP refuses it


def install(pages: Blueprint, told: Callable[[Failure], BaseResponse]) -> None:
    """Have *told* build the page for each of these failures in *pages*, which handles all other errors itself."""

    @pages.errorhandler(Unavailable)
    def later(error: Unavailable) -> BaseResponse:
        log.warning("page not shown: %s", error, extra={"action": "page.unavailable", "pages": pages.name})
        return problems.told_to_wait(told(Failure(what=What.LATER, status=503)), error.retry_after)

    @pages.errorhandler(CommitUnknown)
    @pages.errorhandler(Unconfirmed)
    def uncertain(error: CommitUnknown | Unconfirmed) -> BaseResponse:
        log.warning("commit not confirmed", extra={"action": "page.unconfirmed", "pages": pages.name})
        known = error if isinstance(error, Unconfirmed) else Unconfirmed("the ledger did not confirm the commit")
        return problems.told_to_wait(told(Failure(what=What.UNCERTAIN, status=503)), known.retry_after)

    @pages.errorhandler(HTTPException)
    def refused(error: HTTPException) -> BaseResponse:
        return told(Failure(what=What.REFUSED, status=error.code or 400, reason=error.description or error.name))

    @pages.errorhandler(Exception)
    def fault(error: Exception) -> BaseResponse:
        problems.own(error)
        return told(Failure(what=What.FAULT, status=500))
