"""A server that answers as each provider's pages say it does, and what it expects to be asked: not from our rows."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote

from tests.servers.web import serving

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))

    def client(self) -> tuple[str, str]:
        """The client's id and secret, from wherever they are."""
        if (basic := self.headers.get("authorization", "")).startswith("Basic "):
            name, _, secret = b64decode(basic.removeprefix("Basic ")).decode().partition(":")
            return unquote(name), unquote(secret)
        return self.form.get("client_id", ""), self.form.get("client_secret", "")


@dataclass(frozen=True, kw_only=True)
class Published:
    """One provider as its pages have it."""

    provider: str
    variant: str
    in_header: bool = False  # the client's secret comes by HTTP Basic
    scope_parameter: tuple[str, str] = ("scope", " ")
    authorize: Json = field(default_factory=dict)  # what the authorization URL has to say besides
    code_answer: Json
    refresh_answer: Json | None  # None: there is no refresh token
    expires: bool = True
    dead: tuple[int, Json]  # how it says that a refresh token is no good
    also_dead: tuple[int, Json] | None = None  # how it was seen to say so besides
    bad_client: tuple[int, Json]
    away: tuple[int, Json | None] = (503, None)
    whoami: tuple[str, str, Json] | None = None  # method, path, answer
    who: str | None = None
    places: frozenset[str] = frozenset()  # where it acts
    revoke: tuple[str, str] | None = None  # method, path
    revoked: tuple[int, Json | None] = (200, None)
    gone: tuple[int, Json | None] = (200, None)  # when it is asked again
    unclear: tuple[int, Json] | None = (
        None  # when that or something else is the matter; whether the token is alive tells which
    )
    tokens_an_hour: int | None = None  # how many token requests of one client its pages allow; None: they do not say
    config: Json = field(default_factory=dict)  # {base} is the server's address

    def __str__(self) -> str:
        return f"{self.provider} {self.variant}".strip()


_RFC = {
    "code_answer": {"access_token": "at-1", "refresh_token": "rt-1", "token_type": "Bearer", "expires_in": 3600},
    "refresh_answer": {"access_token": "at-2", "refresh_token": "rt-2", "token_type": "Bearer", "expires_in": 3600},
    "dead": (400, {"error": "invalid_grant"}),
    "bad_client": (401, {"error": "invalid_client"}),
}

_VIEWER = {"id": "4711-uuid", "displayName": "ada", "organization": {"id": "organization-uuid"}}

PUBLISHED = (
    Published(
        provider="github",
        variant="with expiring tokens",
        code_answer={
            "access_token": "at-1",
            "expires_in": 28800,
            "refresh_token": "rt-1",
            "refresh_token_expires_in": 15897600,
            "token_type": "bearer",
            "scope": "",
        },
        refresh_answer={
            "access_token": "at-2",
            "expires_in": 28800,
            "refresh_token": "rt-2",
            "refresh_token_expires_in": 15897600,
            "token_type": "bearer",
            "scope": "",
        },
        dead=(200, {"error": "bad_refresh_token", "error_description": "The refresh token passed is incorrect."}),
        bad_client=(200, {"error": "incorrect_client_credentials"}),
        whoami=("GET", "/api/user", {"id": 583231, "login": "octocat"}),
        who="583231",
        revoke=("DELETE", "/api/applications/the-client/grant"),
        revoked=(204, None),
        gone=(204, None),
        unclear=(422, {"message": "Validation Failed"}),
        tokens_an_hour=2000,
    ),
    Published(
        provider="github",
        variant="without expiring tokens",
        code_answer={"access_token": "at-1", "token_type": "bearer", "scope": ""},
        refresh_answer=None,
        expires=False,
        dead=(200, {"error": "bad_refresh_token"}),
        bad_client=(200, {"error": "incorrect_client_credentials"}),
    ),
    Published(
        provider="slack",
        variant="with rotation",
        scope_parameter=("user_scope", ","),
        code_answer={
            "ok": True,
            "app_id": "A0KRD7HC3",
            "authed_user": {
                "id": "U1234",
                "scope": "a,b",
                "access_token": "at-1",
                "token_type": "user",
                "refresh_token": "rt-1",
                "expires_in": 43200,
            },
            "team": {"id": "T9TK3CUKW"},
        },
        refresh_answer={
            "ok": True,
            "access_token": "at-2",
            "refresh_token": "rt-2",
            "token_type": "user",
            "expires_in": 43200,
            "scope": "a,b",
        },
        dead=(200, {"ok": False, "error": "invalid_refresh_token"}),
        bad_client=(200, {"ok": False, "error": "bad_client_secret"}),
        away=(200, {"ok": False, "error": "ratelimited"}),
        whoami=("POST", "/api/auth.test", {"ok": True, "user_id": "U1234", "user": "grace", "team_id": "T9TK3CUKW"}),
        who="U1234",
        places=frozenset({"T9TK3CUKW"}),
        revoke=("POST", "/api/auth.revoke"),
        revoked=(200, {"ok": True, "revoked": True}),
        gone=(200, {"ok": False, "error": "token_revoked"}),
    ),
    Published(
        provider="slack",
        variant="without rotation",
        scope_parameter=("user_scope", ","),
        code_answer={
            "ok": True,
            "authed_user": {"id": "U1234", "scope": "a,b", "access_token": "at-1", "token_type": "user"},
        },
        refresh_answer=None,
        expires=False,
        dead=(200, {"ok": False, "error": "token_revoked"}),
        bad_client=(200, {"ok": False, "error": "invalid_client_id"}),
    ),
    Published(
        provider="linear",
        variant="",
        scope_parameter=("scope", ","),
        code_answer={
            "access_token": "at-1",
            "refresh_token": "rt-1",
            "token_type": "Bearer",
            "expires_in": 86399,
            "scope": "a b",
        },
        refresh_answer={
            "access_token": "at-2",
            "refresh_token": "rt-2",
            "token_type": "Bearer",
            "expires_in": 86399,
            "scope": "a b",
        },
        dead=_RFC["dead"],  # type: ignore[arg-type]
        bad_client=_RFC["bad_client"],  # type: ignore[arg-type]
        away=(400, {"errors": [{"extensions": {"code": "RATELIMITED"}}]}),
        whoami=("POST", "/api/graphql", {"data": {"viewer": _VIEWER}}),
        who="4711-uuid",
        places=frozenset({"organization-uuid"}),
        revoke=("POST", "/revoke"),
        gone=(400, {"error": "invalid_token"}),
    ),
    Published(
        provider="google",
        variant="",
        authorize={"access_type": "offline", "prompt": "consent"},
        code_answer={
            "access_token": "at-1",
            "refresh_token": "rt-1",
            "token_type": "Bearer",
            "expires_in": 3599,
            "scope": "a b",
        },
        # It sends no refresh token again: the old one stays.
        refresh_answer={"access_token": "at-2", "token_type": "Bearer", "expires_in": 3599, "scope": "a b"},
        dead=(400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}),
        bad_client=(401, {"error": "invalid_client", "error_description": "Unauthorized"}),
        whoami=("GET", "/userinfo", {"sub": "110248495921238986420", "name": "Ada"}),
        who="110248495921238986420",
        revoke=("POST", "/revoke"),
        gone=(400, {"error": "invalid_token", "error_description": "Token expired or revoked"}),
        config={"userinfo_url": "{base}/userinfo"},
    ),
    Published(
        provider="salesforce",
        variant="",
        # No lifetime; `issued_at` is when, in milliseconds, and no end.
        code_answer={
            "access_token": "at-1",
            "refresh_token": "rt-1",
            "instance_url": "https://acme.my.salesforce.com",
            "id": "https://login.salesforce.com/id/00Dx/005x",
            "token_type": "Bearer",
            "issued_at": "1278448101416",
            "scope": "a b",
        },
        refresh_answer={
            "access_token": "at-2",
            "instance_url": "https://acme.my.salesforce.com",
            "token_type": "Bearer",
            "issued_at": "1278448384422",
            "scope": "a b",
        },
        dead=(400, {"error": "invalid_grant", "error_description": "expired access/refresh token"}),
        bad_client=(400, {"error": "invalid_client_id", "error_description": "client identifier invalid"}),
        whoami=(
            "GET",
            "/api/services/oauth2/userinfo",
            {"user_id": "005x", "organization_id": "00Dx", "preferred_username": "ada@acme.example"},
        ),
        who="00Dx/005x",
        revoke=("POST", "/revoke"),
        gone=(400, {"error": "invalid_token"}),
    ),
    Published(
        provider="atlassian",
        variant="",
        authorize={"audience": "api.atlassian.com", "prompt": "consent"},
        code_answer=_RFC["code_answer"],  # type: ignore[arg-type]
        refresh_answer=_RFC["refresh_answer"],  # type: ignore[arg-type]
        dead=(403, {"error": "invalid_grant", "error_description": "Unknown or invalid refresh token."}),
        also_dead=(403, {"error": "unauthorized_client", "error_description": "refresh_token is invalid"}),
        bad_client=(401, {"error": "access_denied", "error_description": "Unauthorized"}),
        whoami=("GET", "/api/me", {"account_id": "5b10a2844c20165700ede21g", "nickname": "ada"}),
        who="5b10a2844c20165700ede21g",
    ),
    *(
        Published(
            provider=name,
            variant="",
            in_header=True,
            code_answer=_RFC["code_answer"],  # type: ignore[arg-type]
            refresh_answer=_RFC["refresh_answer"],  # type: ignore[arg-type]
            dead=_RFC["dead"],  # type: ignore[arg-type]
            bad_client=_RFC["bad_client"],  # type: ignore[arg-type]
            whoami=("GET", "/userinfo", {"sub": "248289761001", "preferred_username": "j.doe"}),
            who="{base}#248289761001",
            revoke=("POST", "/revoke"),
            config={"issuer": "{base}", "userinfo_url": "{base}/userinfo"},
        )
        for name in ("oidc", "oauth2")
    ),
    # Stripe's restricted keys and Zendesk's tokens are given by an admin; a token endpoint would be as the RFC has it.
    *(
        Published(
            provider=name,
            variant="",
            code_answer=_RFC["code_answer"],  # type: ignore[arg-type]
            refresh_answer=_RFC["refresh_answer"],  # type: ignore[arg-type]
            dead=_RFC["dead"],  # type: ignore[arg-type]
            bad_client=_RFC["bad_client"],  # type: ignore[arg-type]
        )
        for name in ("stripe", "zendesk")
    ),
)


class Server:
    """Answers the next request as it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.next: tuple[int, Json | None] = (500, None)
        self.at: dict[str, tuple[int, Json | None]] = {}  # what it answers instead at some paths
        self.about: dict[bytes, tuple[int, Json | None]] = {}  # and to bodies that hold these

    def say(self, status: int, document: Json | None) -> None:
        self.next = (status, document)


@contextmanager
def server() -> Iterator[Server]:
    said = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            said.asked.append(Asked(method=self.command, path=self.path, headers=headers, body=body))
            other = (answer for held, answer in said.about.items() if held in body)
            status, document = next(other, said.at.get(self.path, said.next))
            content = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            if status != 204:
                self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the library's names

        def log_message(self, format: str, *args: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    said.url = f"http://127.0.0.1:{listening.server_address[1]}"
    with serving(listening):
        yield said
