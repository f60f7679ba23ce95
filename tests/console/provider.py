"""An OpenID provider that says whatever a test wants: for answers that a real one never gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, jsonify, request
from joserfc import jwt
from joserfc.jwk import OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.servers.web import serving

CLIENT_ID, CLIENT_SECRET = "console", "a-secret-of-the-client-that-is-long-enough"


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...


@dataclass
class Provider:
    """Its ID token is what `token` makes of the claims that would be right."""

    issuer: str
    key: RSAKey | OKPKey
    moved: RSAKey | None = None  # the key at an address that it may move to
    right: dict[str, Any] = field(default_factory=dict)
    token: Callable[[dict[str, Any]], str] = lambda claims: ""
    userinfo: dict[str, Any] = field(default_factory=dict)
    says: dict[str, Any] = field(default_factory=dict)  # in its metadata, beside its addresses
    away: bool = False  # and says nothing of itself

    def signed(
        self, claims: dict[str, Any], *, key: Any = None, alg: str = "RS256", kid: str | None = "k1", **more: Any
    ) -> str:
        header = {"alg": alg, **({} if kid is None else {"kid": kid}), **more}
        registry = JWSRegistry(algorithms=[alg], strict_check_header=False)
        return jwt.encode(header, claims, key or self.key, registry=registry)


@contextmanager
def provider() -> Iterator[Provider]:
    """Running on loopback."""
    app = Flask("provider")
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    issuer = f"http://127.0.0.1:{server.server_port}"
    key = RSAKey.generate_key(2048, {"kid": "k1", "use": "sig"})
    made = Provider(issuer=issuer, key=key)
    made.token = made.signed

    @app.get("/.well-known/openid-configuration")
    def metadata() -> Response | tuple[str, int]:
        if made.away:
            return "", 503
        addresses = {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/auth",
            "token_endpoint": f"{issuer}/token",
            "userinfo_endpoint": f"{issuer}/me",
            "jwks_uri": f"{issuer}/jwks",
        }
        return jsonify(addresses | made.says)

    @app.get("/jwks")
    @app.get("/moved-jwks")
    def keys() -> Response:
        found = made.key if request.path == "/jwks" else made.moved or made.key
        return jsonify(keys=[found.as_dict(private=False)])

    @app.post("/token")
    def token() -> Response:
        return jsonify(access_token="at", token_type="Bearer", id_token=made.token(made.right))

    @app.get("/me")
    def me() -> Response:
        return jsonify(made.userinfo)

    with serving(server):
        yield made
