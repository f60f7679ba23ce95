"""Access control of the API: key, role and quota are checked before any other part of the request is read."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from functools import partial
from inspect import signature
from types import SimpleNamespace
from typing import Any

from flask import Blueprint, Response, current_app, g, request

from identity.agents.api_keys import Caller, NoCaller, Role
from identity.secret import Secret
from pipeline.agents_api.callers import Requests
from webhooks import problems
from webhooks.client_address import client_address
from webhooks.problems import Problem
from webhooks.quota import WINDOW, Counts, Spent

log = logging.getLogger(__name__)

_KEY = re.compile(r"Bearer +([A-Za-z0-9_.~+/=-]{1,4000})", re.IGNORECASE)  # RFC 6750 §2.1
_CHALLENGE = 'Bearer realm="aswhom"'  # RFC 6750 §3; for a key that was sent, §3.1 adds what was wrong with it


class May(StrEnum):
    """Permissions, worded to complete "a key may …"."""

    CATALOGUE = "see the catalogue"
    EXECUTE = "execute tools"
    JOBS = "see jobs"
    CANCEL = "cancel jobs"
    REPLAY = "replay jobs"
    ACCOUNTS = "see accounts"
    CONNECT = "make connect links"
    CONFIRM = "confirm connect links"
    DELIVERIES = "see deliveries"
    REVOCATIONS = "see revocations"
    REVOKE = "revoke"


_EMPTY = ", {} where there is nothing to say"
_SEES = frozenset({May.CATALOGUE, May.JOBS, May.ACCOUNTS})

ROLES: Mapping[Role, frozenset[May]] = {
    Role.AGENT: _SEES | {May.EXECUTE, May.CANCEL, May.CONNECT},
    Role.PRODUCT: _SEES | {May.CONNECT, May.CONFIRM},
    Role.READER: _SEES | {May.DELIVERIES, May.REVOCATIONS},
    Role.ADMIN: frozenset(May),
}

#: The permission each operation needs. An operation that is missing here is denied to everyone.
NEEDS: Mapping[str, May] = {
    "list_tools": May.CATALOGUE,
    "show_tool": May.CATALOGUE,
    "execute_tool": May.EXECUTE,
    "mcp": May.CATALOGUE,  # each call checks its own permission
    "list_jobs": May.JOBS,
    "show_job": May.JOBS,
    "cancel_job": May.CANCEL,
    "replay_job": May.REPLAY,
    "list_accounts": May.ACCOUNTS,
    "show_account": May.ACCOUNTS,
    "create_connect_link": May.CONNECT,
    "look_at_connect_link": May.CONFIRM,
    "confirm_connect_link": May.CONFIRM,
    "list_deliveries": May.DELIVERIES,
    "show_delivery": May.DELIVERIES,
    "list_revocations": May.REVOCATIONS,
    "show_revocation": May.REVOCATIONS,
    "create_revocation": May.REVOKE,
}

REASONS: Mapping[NoCaller, str] = {
    NoCaller.UNKNOWN: "No such key. Send one that `aswhom api-keys add` printed, as `Authorization: Bearer …`.",
    NoCaller.EXPIRED: "This key has expired. Ask for a new one.",
    NoCaller.REVOKED: "This key, its agent or its tenant was revoked. Ask for a new one.",
    NoCaller.STOPPED: "The agent or its tenant is stopped, until an admin opens it again.",
}


def guard(
    pages: Blueprint, requests: Requests, quota: Counts, *, clock: Callable[[], datetime], ids: Callable[[str], str]
) -> None:
    """Authenticate, rate-limit and authorize each request of *pages*, and number it."""

    @pages.before_request
    def let_in() -> None:
        g.request_id = ids("req")
        g.caller = who = _authenticated(requests, clock())
        for whose, spent in _spent(quota, who):
            g.spent = min(spent, g.get("spent", spent), key=lambda one: one.remaining)
            spent.check(f"{whose} may make {spent.limit} requests a minute. Send the next after Retry-After.")
        needed = NEEDS.get((request.endpoint or "").rpartition(".")[2])
        if needed is None or needed not in ROLES[who.role]:
            detail = f"A key of role {who.role} may not {needed or 'do this'}. Use one whose role allows it."
            raise Problem(problems.NOT_ALLOWED, detail, challenge=f'{_CHALLENGE}, error="insufficient_scope"')
        _read_query()
        _read_json()

    @pages.after_request
    def say_so(response: Response) -> Response:
        # A request that the application refused before `let_in` has no number yet.
        response.headers["Request-Id"] = number = g.setdefault("request_id", ids("req"))
        spent: Spent | None = g.get("spent")
        if spent is not None:  # draft-ietf-httpapi-ratelimit-headers
            response.headers["RateLimit-Policy"] = f'"requests";q={spent.limit};w={WINDOW.total_seconds():.0f}'
            response.headers["RateLimit"] = f'"requests";r={spent.remaining};t={spent.resets_in}'
        who: Caller | None = g.get("caller")
        note = {"action": "api.request", "request": number, "operation": request.endpoint}
        if who is not None:
            note |= {"tenant": who.tenant, "agent": who.agent, "key": who.key}
        if job := g.get("job"):
            note["job"] = job
        note |= g.get("notes", {})
        log.info("answered %s", response.status_code, extra=note)
        return response


def request_id() -> str:
    """Return the current request's id, as the log and the response show it."""
    found: str = g.request_id
    return found


def makes(job: str) -> None:
    """Log *job* as the job that the current request created, or had created before."""
    g.job = job


def notes(**facts: object) -> None:
    """Add *facts* to the current request's log entry."""
    g.notes = {**g.get("notes", {}), **facts}


def caller() -> Caller:
    found: Caller = g.caller
    return found


def refused(why: NoCaller) -> Problem:
    """Return the problem of a key that is not admitted."""
    if why is NoCaller.STOPPED:
        return Problem(problems.STOPPED, REASONS[why])
    return Problem(problems.KEY_REFUSED, REASONS[why], challenge=f'{_CHALLENGE}, error="invalid_token"')


def _authenticated(requests: Requests, now: datetime) -> Caller:
    sent = request.headers.get("Authorization", "").strip()
    if not sent.lower().startswith("bearer"):
        raise Problem(problems.NO_KEY, "Send a key as `Authorization: Bearer …`.", challenge=_CHALLENGE)
    found = _KEY.fullmatch(sent)
    who = requests.caller(Secret(found[1]), now=now) if found else NoCaller.UNKNOWN
    if isinstance(who, NoCaller):
        what = {"action": "api.refused", "request": g.request_id, "why": str(who), "from": client_address()}
        log.warning("key refused", extra=what)
        raise refused(who)
    return who


def _spent(quota: Counts, who: Caller) -> Iterator[tuple[str, Spent]]:
    """Count a request of the key, and of its agent if that has a rate, which all its keys share.

    The key's comes first: a request over it must not use up what other keys of the agent share.
    """
    if who.api_rate is not None or who.agent_rate is None:
        yield "This key", quota.spend(who.key, who.api_rate)
    if who.agent_rate is not None:
        yield "All keys of this agent together", quota.spend(f"agent:{who.agent}", who.agent_rate)


def _read_query() -> None:
    """Refuse query parameters that nothing would read, and repeated ones, which are ambiguous."""
    # An operation with a query model rejects unknown parameters itself.
    if request.args and "query" not in signature(current_app.view_functions[request.endpoint or ""]).parameters:
        unread = next(iter(request.args))[:50]
        raise Problem(
            problems.UNUSABLE, f"This takes nothing in its address, and `{unread}` stands there. Leave it out."
        )
    if twice := [name for name, values in request.args.lists() if len(values) > 1]:
        raise Problem(problems.UNUSABLE, f"`{twice[0][:50]}` stands in the address more than once. Send it once.")


def _read_json() -> None:
    """Refuse a body that is not a JSON object, or is ambiguous, before a model validates it."""
    if request.method != "POST":
        return
    if not request.is_json:
        raise Problem(problems.CONTENT_TYPE, f"Bodies are JSON here. Send Content-Type: application/json{_EMPTY}.")
    request.json_module = _JSON  # for later readers of the body as well
    try:
        body = request.get_json(silent=True)
    except RecursionError:
        raise Problem(problems.NOT_JSON, "The body is nested too deeply.") from None
    if body is None and request.get_data(cache=True).strip() != b"null":
        said = "There is no body" if not request.get_data(cache=True) else "The body is not JSON"
        raise Problem(problems.NOT_JSON, f"{said}. Send a JSON object{_EMPTY}.")
    if not isinstance(body, dict):
        raise Problem(problems.UNUSABLE, "The body is a JSON object, as /v1/openapi.json describes it.")


def _each_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object. Refuse repeated members: a proxy or filter before us may have read the other one."""
    read: dict[str, Any] = {}
    for name, value in members:
        if name in read:
            raise Problem(problems.UNUSABLE, f"`{name[:50]}` stands in the body more than once. Send it once.")
        read[name] = value
    return read


_JSON = SimpleNamespace(loads=partial(json.loads, object_pairs_hook=_each_once))
