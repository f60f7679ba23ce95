"""Zendesk's Ticketing API, limited to creating and listing tickets.

See developer.zendesk.com/api-reference/ticketing/tickets, and for the limits
developer.zendesk.com/api-reference/introduction/rate-limits. List endpoints return more rate-limit headers than others.
"""

import itertools
import threading
from typing import Any

from flask import Flask, Response, jsonify, request

from deploy.sandbox.journal import Clock, Journal
from deploy.sandbox.static_tokens import StaticTokens
from deploy.sandbox.surface import entry, equip, touched
from deploy.sandbox.windows import Windows, limit, say

FIELDS = {"subject", "comment", "priority", "external_id", "tags", "requester"}
REQUESTS, MINUTE = 700, 60  # per account and minute
PRIORITIES = {"urgent", "high", "normal", "low"}


class Refused(Exception):
    def __init__(self, status: int, error: str, description: str, *, retry_after: int | None = None) -> None:
        super().__init__(description)
        self.status, self.error, self.description = status, error, description
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}


def create_zendesk(world: dict[str, Any], *, journal: Journal, clock: Clock) -> Flask:
    app = Flask(__name__)
    desks = world["zendesk"]["desks"]
    tokens = StaticTokens({row["token"]: row for row in desks}, tenant="subdomain")
    lock, numbers = threading.Lock(), itertools.count(1)
    requests = Windows(clock=clock, limit=REQUESTS, seconds=MINUTE)
    tickets: dict[str, list[dict[str, Any]]] = {row["subdomain"]: [] for row in desks}

    def desk(scope: str, *, listing: bool = False) -> str:
        """Return the help desk that the token belongs to. Raise Refused."""
        row, works = tokens.presented("app")
        if row is not None:
            entry().actor = row["application"]
        if row is None or not works:
            raise Refused(401, "invalid_token", "The access token provided is expired, revoked, malformed or invalid.")
        now = requests.count(row["subdomain"])
        say({"X-Rate-Limit": str(now.limit), "X-Rate-Limit-Remaining": str(now.remaining)})
        wait = max(1, now.resets - int(clock().timestamp()))
        if listing:
            names = ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset")
            say(dict(zip(names, map(str, (now.limit, now.remaining, wait)), strict=True)))
        if now.exceeded:
            said = "Number of allowed API requests per minute exceeded"
            raise Refused(429, "APIRateLimitExceeded", said, retry_after=wait)
        if scope not in row["scopes"]:
            raise Refused(403, "Forbidden", "You do not have access to this page.")
        return str(row["subdomain"])

    @app.post("/api/v2/tickets")
    def create_ticket() -> tuple[Response, int]:
        where, document = desk("tickets:write"), request.get_json(silent=True)
        asked = document.get("ticket") if isinstance(document, dict) else None
        if not isinstance(asked, dict) or not asked.keys() <= FIELDS:
            raise Refused(400, "InvalidTicket", "The body must be a ticket of known fields")
        comment = asked.get("comment")
        if not isinstance(comment, dict) or not comment.get("body"):
            raise Refused(422, "RecordInvalid", "Description: cannot be blank")
        if asked.get("priority", "normal") not in PRIORITIES:
            raise Refused(422, "RecordInvalid", "Priority: is not valid")
        now = clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        with lock:
            number = next(numbers)
            ticket = {
                "id": number,
                "url": f"{request.host_url}api/v2/tickets/{number}.json",
                "external_id": asked.get("external_id"),
                "subject": asked.get("subject"),
                "raw_subject": asked.get("subject"),
                "description": comment["body"],
                "priority": asked.get("priority"),
                "status": "new",
                "tags": asked.get("tags", []),
                "created_at": now,
                "updated_at": now,
            }
            tickets[where].append(ticket)
        touched(f"{where}/{number}")
        return jsonify(ticket=ticket), 201

    @app.get("/api/v2/tickets")
    def list_tickets() -> Response:
        where, external = desk("tickets:read", listing=True), request.args.get("external_id")
        with lock:
            found = [one for one in tickets[where] if external is None or one["external_id"] == external]
        return jsonify(tickets=found[:100], count=len(found), next_page=None, previous_page=None)

    @app.get("/_sandbox/tickets")
    def read_tickets() -> Response:
        with lock:
            return jsonify(tickets)

    @app.errorhandler(Refused)
    def refused(error: Refused) -> tuple[Response, int]:
        response = jsonify(error=error.error, description=error.description)
        response.headers.update(error.headers)
        return response, error.status

    equip(app, journal=journal)
    limit(app, requests=requests)
    app.register_blueprint(tokens.control())
    return app
