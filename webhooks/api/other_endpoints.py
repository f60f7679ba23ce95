"""Endpoints for machines beside the agents' API, as the OpenAPI document describes them.

Each speaks its own protocol: it verifies raw bytes, or refuses in that protocol's terms. None is therefore generated
from models as operations are. `tests/api/test_explored.py` checks these descriptions, and `tests/docs/test_api.py`
compares them with the app's routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flask import Flask

from identity.capability.verifier import DETAIL
from webhooks.api.job_models import LONGEST_WAIT
from webhooks.authority.endpoints import EXCHANGE
from webhooks.authority.narrower import ACCESS_TOKEN, JWT
from webhooks.authority.oauth import FORM
from webhooks.authority.oauth import Code as OAuthCode
from webhooks.security_event import Code as EventCode
from webhooks.security_event_push import SET
from webhooks.sources import SOURCES

Schema = Mapping[str, Any]

KEY = "key"  # the security scheme of the agents' API
AUDIENCE = "audience"  # how a service that accepts capabilities authenticates
SCHEMES: Mapping[str, Schema] = {
    AUDIENCE: {"type": "http", "scheme": "basic", "description": "The audience's id and its secret (RFC 6749 §2.3.1)"}
}

TEXT: Schema = {"type": "string"}
JSON, PLAIN, PROBLEM = "application/json", "text/plain", "application/problem+json"
_PROBLEM: Schema = {"$ref": "#/components/schemas/ProblemDocument"}
_HASH: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
# A parameter without a value counts as omitted (RFC 6749 §3.2).
_HASH_IF_ANY: Schema = {"type": "string", "pattern": "^([0-9a-f]{64})?$"}


def _object(required: Iterable[str] = (), **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": [*required]}


def _answer(said: str, kind: str = "", schema: Schema = TEXT) -> Schema:
    return {"description": said, **({"content": {kind: {"schema": schema}}} if kind else {})}


def _problems(**said: str) -> dict[str, Schema]:
    """Return problem documents by status: `_404="…"`."""
    return {status.lstrip("_"): _answer(words, PROBLEM, _PROBLEM) for status, words in said.items()}


def _of(
    name: str,
    summary: str,
    answers: Mapping[str, Schema],
    *,
    rfc: int | None = None,
    by: str | None = None,
    body: Mapping[str, Schema] | None = None,
    path: Mapping[str, Schema] | None = None,
    query: Mapping[str, Schema] | None = None,
) -> Schema:
    """Return one operation. *body*: schemas by content type; *by*: the security scheme that it requires."""
    told: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "tags": ["beside the API"],
        "security": [] if by is None else [{by: []}],
        "responses": dict(answers),
    }
    if rfc is not None:
        told["externalDocs"] = {"description": f"RFC {rfc}", "url": f"https://www.rfc-editor.org/rfc/rfc{rfc}"}
    if body is not None:
        content = {kind: {"schema": schema} for kind, schema in body.items()}
        told["requestBody"] = {"required": True, "content": content}
    if path is not None or query is not None:
        told["parameters"] = [
            {"name": name, "in": place, "required": "default" not in schema, "schema": schema}
            for place, named in (("path", path or {}), ("query", query or {}))
            for name, schema in named.items()
        ]
    return told


_NOT_NOW = _problems(_503="Not now")
_OAUTH_ERROR = _object(("error",), error={"enum": [*OAuthCode]}, error_description=TEXT, reason=TEXT)
_REFUSED = {
    "400": _answer("Refused (RFC 6749 §5.2)", JSON, _OAUTH_ERROR),
    "401": _answer("Unknown audience, or wrong secret", JSON, _OAUTH_ERROR),
    "413": _answer("The body is too large", JSON, _OAUTH_ERROR),
    "503": _answer("Not now", JSON, _OAUTH_ERROR),
}
_RPC = _object(("jsonrpc", "id"), jsonrpc={"const": "2.0"}, result={"type": "object"}, error={"type": "object"})
_NO_RPC = {
    "description": "Not JSON, an unknown revision of MCP, or not a JSON-RPC request",
    "content": {PROBLEM: {"schema": _PROBLEM}, JSON: {"schema": _RPC}},
}
_UP = _answer("The process is up", JSON, _object(("status",), status=TEXT))
_READY = _answer("Ready, as of at most a second ago", JSON, _object(("status",), status=TEXT, signing_key=TEXT))
_ACCEPTED = _object(
    ("outcome",),  # a dropped delivery is not stored
    outcome=TEXT,
    delivery=TEXT,
    reason=TEXT,
    jobs={"type": "array", "items": TEXT},
    revocations={"type": "array", "items": TEXT},
)
_CONTENT_TYPES = sorted({kind for source in SOURCES.values() for kind in source.content_types})

#: By path in Flask's notation, and method.
BESIDE: Mapping[str, Mapping[str, Schema]] = {
    "/v1/openapi.json": {
        "get": _of("openapi", "This document.", {"200": _answer("The document", JSON, _object(("openapi",)))})
    },
    "/v1/mcp": {
        "post": _of(
            "mcp",
            "The MCP server of the tools: Streamable HTTP, without sessions or streams.",
            {
                "200": _answer("A JSON-RPC response", JSON, _RPC),
                "202": _answer("A notification, which gets no response"),
                "400": _NO_RPC,
                **_problems(
                    _401="No key, or one that is not accepted",
                    _403="The key's role does not allow it, its agent is stopped, or a page of another origin asks",
                    _415="The body is not JSON",
                    _422="Not a JSON object, or no `identifier` in the address",
                    _429="Too many requests",
                ),
                **_NOT_NOW,
            },
            by=KEY,
            body={
                JSON: _object(
                    ("jsonrpc", "method"),
                    jsonrpc={"const": "2.0"},
                    id={"type": ["string", "integer"]},  # a notification has none
                    method={"type": "string", "maxLength": 100},
                    params={"type": ["object", "null"]},
                )
            },
            query={
                "identifier": {"type": "string", "minLength": 1, "maxLength": 200},
                "wait": {"type": "number", "minimum": 0, "maximum": LONGEST_WAIT, "default": LONGEST_WAIT},
            },
        )
    },
    "/.well-known/jwks.json": {
        "get": _of(
            "keys",
            "The keys that sign capability tokens.",
            {
                "200": _answer(
                    "A JWK set",
                    "application/jwk-set+json",
                    _object(("keys",), keys={"type": "array", "items": {"type": "object"}}),
                ),
                **_NOT_NOW,
            },
            rfc=7517,
        )
    },
    "/.well-known/oauth-authorization-server": {
        "get": _of(
            "metadata",
            "Metadata of the capability authority.",
            {
                "200": _answer(
                    "Metadata",
                    JSON,
                    _object(("issuer", "jwks_uri", "token_endpoint"), issuer=TEXT, jwks_uri=TEXT, token_endpoint=TEXT),
                )
            },
            rfc=8414,
        )
    },
    "/oauth/token": {
        "post": _of(
            "exchange_token",
            "Exchange a capability token for one with another audience and no more authority.",
            {
                "200": _answer(
                    "The narrower token",
                    JSON,
                    _object(
                        ("access_token", "issued_token_type", "token_type", "expires_in"),
                        access_token=TEXT,
                        issued_token_type={"enum": [JWT, ACCESS_TOKEN]},
                        token_type={"const": "Bearer"},
                        expires_in={"type": "integer", "minimum": 0},
                    ),
                ),
                **_REFUSED,
            },
            rfc=8693,
            by=AUDIENCE,
            body={
                FORM: _object(
                    ("grant_type", "subject_token", "subject_token_type", "audience", "request_sha256"),
                    grant_type={"const": EXCHANGE},
                    subject_token=TEXT,
                    subject_token_type={"enum": [JWT, ACCESS_TOKEN]},
                    requested_token_type={"enum": [JWT, ACCESS_TOKEN, ""]},
                    audience=TEXT,
                    request_sha256=_HASH,
                    lifetime={"type": "string", "description": "Seconds"},
                    authorization_details={"type": "string", "description": f"One {DETAIL} (RFC 9396), as JSON"},
                )
            },
        )
    },
    "/oauth/introspect": {
        "post": _of(
            "introspect_token",
            "Check whether a capability token is valid for this request now; the check spends it.",
            {
                "200": _answer("The state of the token", JSON, _object(("active",), active={"type": "boolean"})),
                **_REFUSED,
            },
            rfc=7662,
            by=AUDIENCE,
            body={FORM: _object(("token",), token=TEXT, request_sha256=_HASH_IF_ANY)},
        )
    },
    "/events/<transmitter>": {
        "post": _of(
            "push_security_event",
            "Receive a Security Event Token of a registered transmitter, authenticated only by its signature.",
            {
                "202": _answer("Committed, or known already"),
                "400": _answer(
                    "Refused (§2.3)",
                    JSON,
                    _object(("err", "description"), err={"enum": [*EventCode]}, description=TEXT),
                ),
                **_problems(_404="No such transmitter"),
                **_NOT_NOW,
            },
            rfc=8935,
            body={SET: TEXT},
            path={"transmitter": TEXT},
        )
    },
    "/webhooks/<source>/<connection>": {
        "post": _of(
            "receive_delivery",
            "Receive a delivery of a provider or a tenant's own system, in its sender's format and signature scheme.",
            {
                "200": _answer("Response to a challenge, or to a sender that shows it to a person", "*/*", {}),
                "202": _answer("Accepted, with its outcome", JSON, _ACCEPTED),
                **_problems(
                    _400="The delivery cannot be read",
                    _401="The signature was refused",
                    _404="No such webhook address",
                    _413="The body is too large",
                    _415="A content type or an encoding that this sender does not use",
                    _429="More than this connection or tenant may send",
                ),
                **_NOT_NOW,
            },
            body={kind: {} for kind in _CONTENT_TYPES},
            path={"source": {"enum": [*SOURCES]}, "connection": TEXT},
        )
    },
    "/healthz": {"get": _of("alive", "Liveness: the process is up.", {"200": _UP})},
    "/readyz": {"get": _of("ready", "Readiness: it can accept a delivery.", {"200": _READY, **_NOT_NOW})},
    "/metrics": {"get": _of("metrics", "Metrics in Prometheus' text format.", {"200": _answer("Every metric", PLAIN)})},
}


def beside(app: Flask) -> dict[str, Any]:
    """Return the path items of the endpoints that *app* serves."""
    served = {rule.rule for rule in app.url_map.iter_rules()}
    return {written(rule): dict(item) for rule, item in BESIDE.items() if rule in served}


def written(rule: str) -> str:
    """Convert Flask's `<name>` to OpenAPI's `{name}`."""
    return rule.replace("<", "{").replace(">", "}")
