"""Salesforce's REST API, limited to opportunities. Its base URL stands for an organization's My Domain.

developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest: sObject Rows, and error responses as lists.
"""

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Flask, Response, jsonify, request

from deploy.sandbox.introspection import Introspection
from deploy.sandbox.journal import Clock, Journal
from deploy.sandbox.surface import BadControl, entry, equip, json_body, touched
from deploy.sandbox.windows import Windows, limit, say

VERSIONS = {"v60.0", "v61.0", "v62.0", "v63.0", "v64.0"}
STAGES = {"Prospecting", "Qualification", "Proposal/Price Quote", "Negotiation/Review", "Closed Won", "Closed Lost"}
# The fields an update may set, and their types.
WRITABLE: dict[str, tuple[type, ...]] = {"StageName": (str,), "Amount": (int, float), "NextStep": (str, type(None))}
CALLS, DAY = 100_000, 86_400  # per organization, in a fixed window rather than a rolling one
ROW = "/services/data/<version>/sobjects/Opportunity/<key>"


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str, *fields: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.fields = status, code, message, fields


@dataclass(frozen=True, kw_only=True)
class Bearer:
    """The user of a session."""

    organization: str
    user_id: str
    name: str


def create_salesforce(world: dict[str, Any], *, journal: Journal, clock: Clock) -> Flask:
    app = Flask(__name__)
    introspection = Introspection(world["auth"])
    lock = threading.Lock()
    calls = Windows(clock=clock, limit=CALLS, seconds=DAY)
    rows = {
        row["id"]: _row(organization["id"], row, clock())
        for organization in world["salesforce"]["organizations"]
        for row in organization["opportunities"]
    }

    def bearer() -> Bearer:
        """Return the session's user. Raise Refused."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        described: dict[str, Any] = introspection.describe(token) if token else {"known": False}
        if not described["known"] or described["provider"] != "salesforce":
            raise Refused(401, "INVALID_SESSION_ID", "Session expired or invalid")
        entry().token_kind, entry().actor, entry().tenant = "user", described["user"], described["tenant"]
        if not described["active"]:
            raise Refused(401, "INVALID_SESSION_ID", "Session expired or invalid")
        if "api" not in described["scopes"]:
            raise Refused(403, "API_DISABLED_FOR_ORG", "The session may not use the API")
        return Bearer(organization=described["organization"], user_id=described["user_id"], name=described["user"])

    def caller() -> Bearer:
        """Return the user of an API request, counted for their organization. Raise Refused."""
        who = bearer()
        now = calls.count(who.organization)
        say({"Sforce-Limit-Info": f"api-usage={now.used}/{now.limit}"})
        if now.exceeded:
            raise Refused(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
        return who

    def found(who: Bearer, version: str, key: str) -> dict[str, Any]:
        row = rows.get(key)
        if version not in VERSIONS or row is None or row["organization"] != who.organization:
            raise Refused(404, "NOT_FOUND", "The requested resource does not exist")
        return row

    @app.get("/services/oauth2/userinfo")
    def userinfo() -> Response:
        who = bearer()
        return jsonify(user_id=who.user_id, organization_id=who.organization, preferred_username=who.name)

    @app.get(ROW)
    def get_opportunity(version: str, key: str) -> Response:
        who = caller()
        with lock:
            row = found(who, version, key)
            wanted = [name for name in request.args.get("fields", "").split(",") if name] or list(row["fields"])
            if unknown := [name for name in wanted if name not in row["fields"]]:
                raise Refused(400, "INVALID_FIELD", f"No such column '{unknown[0]}'", *unknown)
            shown = {name: row["fields"][name] for name in wanted}
        url = f"/services/data/{version}/sobjects/Opportunity/{key}"
        return jsonify({"attributes": {"type": "Opportunity", "url": url}, **shown})

    @app.patch(ROW)
    def update_opportunity(version: str, key: str) -> tuple[str, int]:
        who, changes = caller(), request.get_json(silent=True)
        if not isinstance(changes, dict):
            raise Refused(400, "JSON_PARSER_ERROR", "The body is no JSON object")
        with lock:
            row = found(who, version, key)
            for name, value in changes.items():
                if name not in WRITABLE:
                    raise Refused(400, "INVALID_FIELD_FOR_INSERT_UPDATE", f"{name} cannot be set", name)
                if not isinstance(value, WRITABLE[name]):
                    raise Refused(400, "JSON_PARSER_ERROR", f"{name} has another type", name)
            if changes.get("StageName", "Prospecting") not in STAGES:
                raise Refused(400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "Stage: bad value", "StageName")
            row["fields"].update(changes, LastModifiedById=who.user_id, LastModifiedDate=_moment(clock()))
        touched(key)
        return "", 204

    @app.get("/_sandbox/opportunities")
    def read_opportunities() -> Response:
        with lock:
            return jsonify([row["fields"] for row in rows.values()])

    @app.post("/_sandbox/opportunities/<key>")
    def edit_opportunity(key: str) -> Response:
        """Change an opportunity as a user in the browser would."""
        changes = json_body()
        with lock:
            if key not in rows:
                raise BadControl(f"there is no opportunity {key}")
            rows[key]["fields"].update(changes, LastModifiedDate=_moment(clock()))
        return jsonify(ok=True)

    @app.errorhandler(Refused)
    def refused(error: Refused) -> tuple[Response, int]:
        body: dict[str, Any] = {"message": error.message, "errorCode": error.code}
        if error.fields:
            body["fields"] = list(error.fields)
        return jsonify([body]), error.status

    equip(app, journal=journal)
    limit(app, requests=calls)
    return app


def _row(organization: str, row: dict[str, Any], now: datetime) -> dict[str, Any]:
    fields = {
        "Id": row["id"],
        "Name": row["name"],
        "StageName": row["stage"],
        "Amount": row["amount"],
        "NextStep": None,
        "OwnerId": row["owner"],
        "LastModifiedById": row["owner"],
        "LastModifiedDate": _moment(now),
    }
    return {"organization": organization, "fields": fields}


def _moment(now: datetime) -> str:
    """Format a time as Salesforce does: 2026-03-01T09:00:00.000+0000."""
    return now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}+0000"
