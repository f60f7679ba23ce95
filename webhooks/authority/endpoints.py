"""HTTP endpoints of the capability authority: keys, metadata, token exchange and introspection."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from flask import Blueprint, Response, request

from identity.capability.model import Audience
from identity.capability.narrowing import Narrower, TooWide
from identity.capability.token_exchange import Exchanged, NotExchanged
from identity.capability.verifier import ALGORITHMS, DETAIL
from identity.secret import Secret
from webhooks.authority import narrower
from webhooks.authority.narrower import ACCESS_TOKEN, JWT
from webhooks.authority.oauth import (
    Code,
    OAuthError,
    answer,
    credentials,
    in_oauths_words,
    needed,
    parameters,
    uses_one_method,
)
from webhooks.client_address import client_address
from webhooks.settings import WebSettings

log = logging.getLogger(__name__)

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
OF_OAUTH = frozenset({"/oauth/token", "/oauth/introspect"})  # refusals before routing use OAuth's format here as well
KEYS_KEPT = 300  # seconds that clients may cache the key set: less than a new key is published before it signs


class Authority(Protocol):
    """The web's interface to `identity.capability.authority`. All methods may raise Unavailable."""

    def key_set(self) -> Mapping[str, Any]: ...

    def audience(self, id: str, secret: Secret) -> Audience | None: ...

    def introspect(self, token: Secret, by: Audience, *, request_sha256: str | None) -> Mapping[str, Any]: ...

    def exchange(self, token: Secret, by: Audience, *, target: str, asked: Narrower) -> Exchanged | NotExchanged: ...


def authority_pages(settings: WebSettings, authority: Authority, *, clock: Callable[[], datetime]) -> Blueprint:
    pages = Blueprint("authority", __name__)
    base = settings.base_url.rstrip("/")

    @pages.get("/.well-known/jwks.json")
    def keys() -> Response:
        response = Response(json.dumps(authority.key_set()), content_type="application/jwk-set+json")
        response.headers["Cache-Control"] = f"public, max-age={KEYS_KEPT}"
        return response

    @pages.get("/.well-known/oauth-authorization-server")
    def metadata() -> Response:
        response = Response(json.dumps(metadata_of(base)), content_type="application/json")
        response.headers["Cache-Control"] = f"public, max-age={KEYS_KEPT}"
        return response

    @pages.post("/oauth/introspect")
    def introspect() -> Response:
        by, given = _client(authority)
        seen = given.get("request_sha256")
        if seen is not None and not re.fullmatch(r"[0-9a-f]{64}", seen):
            raise OAuthError(Code.INVALID_REQUEST, "request_sha256 should be SHA-256 in lower-case hex")
        document = authority.introspect(Secret(needed(given, "token")), by, request_sha256=seen)
        said = {"action": "capability.introspected", "audience": by.id, "active": document["active"]}
        log.info("token introspected", extra={**said, "reason": document.get("reason")})
        return answer(document)

    @pages.post("/oauth/token")
    def exchange() -> Response:
        by, given = _client(authority)
        if needed(given, "grant_type") != EXCHANGE:
            raise OAuthError(Code.UNSUPPORTED_GRANT_TYPE, f"the one grant there is: {EXCHANGE}")
        if needed(given, "subject_token_type") not in (JWT, ACCESS_TOKEN):
            raise OAuthError(Code.INVALID_REQUEST, f"subject_token_type should be {JWT}")
        if "actor_token" in given or "resource" in given or "scope" in given:
            # Parameters that are not supported must not be ignored: they might have been meant to restrict.
            raise OAuthError(
                Code.INVALID_REQUEST,
                "actor_token, resource and scope are not taken: who acts is who authenticates, and what is asked for "
                "is in audience and authorization_details",
            )
        kind = given.get("requested_token_type", JWT)  # a capability is both: return the type that was requested
        if kind not in (JWT, ACCESS_TOKEN):
            raise OAuthError(Code.INVALID_REQUEST, f"requested_token_type should be {JWT}")
        target = needed(given, "audience")
        asked = narrower.read(given, target=target)
        token = Secret(needed(given, "subject_token"))
        match authority.exchange(token, by, target=target, asked=asked):
            case Exchanged(token=token, capability=made):
                # RFC 6749 §5.1 counts from the response; a token that was issued before has less time left.
                seconds = max(0, int((made.expires_at - clock()).total_seconds()))
                return answer(
                    {
                        "access_token": token.reveal(),
                        "issued_token_type": kind,
                        "token_type": "Bearer",
                        "expires_in": seconds,
                    }
                )
            case NotExchanged(why=why):
                raise _refusal(why)

    @pages.errorhandler(OAuthError)
    def refused(error: OAuthError) -> Response:
        what = {"action": "authority.refused", "reason": error.reason, "from": client_address()}
        log.warning("refused: %s", error.code, extra=what)
        return error.document()

    @pages.after_app_request
    def speak(response: Response) -> Response:
        is_ours = request.path in OF_OAUTH and response.mimetype == "application/problem+json"
        return in_oauths_words(response) if is_ours else response

    return pages


def metadata_of(base: str) -> dict[str, Any]:
    """Return the server metadata (RFC 8414 §2)."""
    by = ["client_secret_basic"]
    return {
        "issuer": base,
        "jwks_uri": f"{base}/.well-known/jwks.json",
        "token_endpoint": f"{base}/oauth/token",
        "token_endpoint_auth_methods_supported": by,
        "introspection_endpoint": f"{base}/oauth/introspect",
        "introspection_endpoint_auth_methods_supported": by,
        "grant_types_supported": [EXCHANGE],
        "response_types_supported": [],  # there is no authorization endpoint
        "authorization_details_types_supported": [DETAIL],  # RFC 9396 §10
        "capability_signing_alg_values_supported": list(ALGORITHMS),
        # Extensions, announced so that a plain RFC 8693 client can tell that it needs more (RFC 8414 §2 allows this).
        "aswhom_extension_parameters": {
            "token_endpoint": {"request_sha256": "required", "lifetime": "optional"},
            "introspection_endpoint": {"request_sha256": "optional"},
        },
    }


def _client(authority: Authority) -> tuple[Audience, Mapping[str, str]]:
    """Authenticate the client, and return it with the request's parameters. Raises OAuthError."""
    id, secret = credentials(request)
    by = authority.audience(id, secret)
    if by is None:
        raise OAuthError(Code.INVALID_CLIENT, "there is no such audience, or this is not its secret")
    given = parameters(request)
    uses_one_method(given, id)
    return by, given


def _refusal(why: object) -> OAuthError:
    if why in (TooWide.TARGET, TooWide.TENANT) and isinstance(why, TooWide):
        return OAuthError(Code.INVALID_TARGET, "this client may pass nothing on to that audience", reason=str(why))
    if why is TooWide.APPROVED:
        return OAuthError(
            Code.INVALID_REQUEST,
            "people approved the one request that this token is for, and no other",
            reason=str(why),
        )
    if isinstance(why, TooWide):
        code = Code.INVALID_REQUEST if why in (TooWide.DEPTH, TooWide.LIFETIME) else Code.INVALID_DETAILS
        return OAuthError(code, "what is asked for is more than the token has", reason=str(why))
    return OAuthError(Code.INVALID_REQUEST, "the subject token cannot be exchanged", reason=str(why))
