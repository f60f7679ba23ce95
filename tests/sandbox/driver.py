"""Runs the four processes, and does to them what a browser, a client and a test's author would."""

import base64
import hashlib
import json
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
from joserfc import jwt
from joserfc.jwk import RSAKey

from deploy.sandbox import clear
from deploy.sandbox.world import make_world
from tests.servers.process import Process, end, free_port, start_python
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("auth", "github", "linear", "slack", "salesforce", "stripe", "zendesk", "invoices")
PATHS = {
    "github": ("/github/login/oauth/authorize", "/github/login/oauth/access_token"),
    "linear": ("/linear/oauth/authorize", "/linear/oauth/token"),
    "salesforce": ("/salesforce/services/oauth2/authorize", "/salesforce/services/oauth2/token"),
}
JSON = {"Accept": "application/json"}


class Receiver:
    """Keeps the webhooks it is sent."""

    def __init__(self) -> None:
        self.taken: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.taken.append((dict(self.headers.items()), body))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def take(self) -> list[tuple[dict[str, str], bytes]]:
        """What came since the last look."""
        taken, self.taken = self.taken, []
        return taken


class Sandbox:
    def __init__(self, world: dict[str, Any], receiver: Receiver, folder: Path) -> None:
        self.world = world
        self.receiver = receiver
        self.folder = folder
        self.http = clear.client(timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def url(self, service: str, path: str = "") -> str:
        return str(self.world[service]["url"]) + path

    def client(self, provider: str) -> dict[str, Any]:
        """The platform's registration with *provider*."""
        rows: list[dict[str, Any]] = self.world["auth"]["clients"]
        return next(row for row in rows if row["provider"] == provider)

    def ask(self, provider: str, *, user: str, decision: str = "allow", **changes: Any) -> tuple[httpx.Response, str]:
        """Go through the consent page; the answer to its form, and the PKCE verifier."""
        verifier = secrets.token_urlsafe(40)
        client = self.client(provider)
        fields = {
            "response_type": "code",
            "client_id": client["client_id"],
            "redirect_uri": client["redirect_uris"][0],
            "state": "st&te",
            "scope": {"github": "", "linear": "read,write"}.get(provider, "api refresh_token"),
            "code_challenge": s256(verifier),
            "code_challenge_method": "S256",
        } | changes
        page = self.http.get(self.url("auth", PATHS[provider][0]), params=fields)
        if page.status_code != 200:
            return page, verifier
        form = Form(page.text)
        answer = self.http.post(self.url("auth", form.action), data=form.hidden | {"user": user, "decision": decision})
        return answer, verifier

    def code(self, provider: str, user: str, **changes: Any) -> tuple[str, str]:
        answer, verifier = self.ask(provider, user=user, **changes)
        return httpx.URL(answer.headers["location"]).params["code"], verifier

    def redeem(self, provider: str, code: str, verifier: str, **changes: Any) -> httpx.Response:
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.client(provider)["redirect_uris"][0],
            "code_verifier": verifier,
        }
        return self.token(provider, fields | changes)

    def connect(self, provider: str, user: str, **changes: Any) -> dict[str, Any]:
        """A user's fresh tokens."""
        answer: dict[str, Any] = self.redeem(provider, *self.code(provider, user, **changes)).json()
        return answer

    def refresh(self, provider: str, token: str, **headers: str) -> httpx.Response:
        return self.token(provider, {"grant_type": "refresh_token", "refresh_token": token}, **headers)

    def token(self, provider: str, fields: dict[str, str], **headers: str) -> httpx.Response:
        client = self.client(provider)
        secret = {"client_id": client["client_id"], "client_secret": client["client_secret"]}
        return self.http.post(self.url("auth", PATHS[provider][1]), data=secret | fields, headers=JSON | headers)

    def app_token(self, tenant: str) -> str:
        """A token with which the Linear app acts as itself in the tenant's organization."""
        (client,) = [one for one in self.world["auth"]["clients"] if one.get("tenant") == tenant]
        secret = {"client_id": client["client_id"], "client_secret": client["client_secret"]}
        fields = {"grant_type": "client_credentials", "scope": "read,write"}
        answer = self.http.post(self.url("auth", PATHS["linear"][1]), data=secret | fields, headers=JSON)
        return str(answer.json()["access_token"])

    def app_jwt(self, **claims: Any) -> str:
        now, github = int(time.time()), self.world["github"]
        key = RSAKey.import_key(github["app_private_key_pem"])
        return jwt.encode({"alg": "RS256"}, {"iss": github["app_id"], "iat": now - 60, "exp": now + 540} | claims, key)

    def installation_token(self, number: int = 9001, **narrowed: Any) -> str:
        answer = self.github("POST", f"/app/installations/{number}/access_tokens", self.app_jwt(), json=narrowed)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    def github(self, method: str, path: str, token: str | None, **how: Any) -> httpx.Response:
        headers = how.pop("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        return self.http.request(method, self.url("github", path), headers=headers, **how)

    def application(self, method: str, what: str, token: str) -> int:
        """The status GitHub answers the platform's client about a user's token, or the grant behind it."""
        github = self.world["github"]
        basic = (github["client_id"], github["client_secret"])
        path, body = f"/applications/{github['client_id']}/{what}", {"access_token": token}
        return int(self.github(method, path, None, auth=basic, json=body).status_code)

    def linear(self, token: str | None, query: str, **variables: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.http.post(
            self.url("linear", "/graphql"), headers=headers, json={"query": query, "variables": variables}
        )

    def slack(self, method: str, token: str | None, **fields: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.http.post(self.url("slack", f"/api/{method}"), headers=headers, json=fields)

    def order(self, service: str, path: str, **body: Any) -> Any:
        """Something on the control surface."""
        answer = self.http.post(self.url(service, f"/_sandbox/{path}"), json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def read(self, service: str, path: str) -> Any:
        return self.http.get(self.url(service, f"/_sandbox/{path}")).json()

    def open_pull(self, repo: str = "acme/shop", author: str = "ada", **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.order(
            "github", "pulls", **{"repo": repo, "author": author, "title": "A change"} | more
        )
        return answer


class Form(HTMLParser):
    """The one form of the consent page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action, self.hidden, self.users, self.decisions = "", dict[str, str](), list[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        match tag, {name: value or "" for name, value in attrs}:
            case "form", {"action": action, "method": "post"}:
                self.action = action
            case "input", {"type": "hidden", "name": name, "value": value}:
                self.hidden[name] = value
            case "option", {"value": value}:
                self.users.append(value)
            case "button", {"name": "decision", "value": value}:
                self.decisions.append(value)


def s256(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


@contextmanager
def running(folder: Path, *, callbacks: dict[str, str] | None = None, **options: Any) -> Iterator[Sandbox]:
    """A sandbox of its own, stopped at the end."""
    receiver = Receiver()
    world = make_world(
        ports={service: free_port() for service in SERVICES},
        hooks={
            "github": f"{receiver.url}/github",
            "slack": f"{receiver.url}/slack",
            "linear": f"{receiver.url}/linear",
        },
        callbacks=callbacks
        or {
            "github": "http://127.0.0.1:1/back/github",
            "linear": "http://127.0.0.1:1/back/linear?x=1",
            "salesforce": "http://127.0.0.1:1/back/salesforce",
        },
        now=datetime.now(UTC),
        **options,
    )
    (folder / "world.json").write_text(json.dumps(world))
    processes = [start(folder, service) for service in SERVICES]
    try:
        for process in processes:
            address(process)
        with Sandbox(world, receiver, folder) as sandbox:
            yield sandbox
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            end(process, seconds=5)
        receiver.close()


def start(folder: Path, service: str) -> Process:
    return start_python(
        "deploy.sandbox",
        *(service, "--world", str(folder / "world.json"), "--log", str(folder / f"{service}.jsonl")),
        log=folder / f"{service}.log",
        stdout=subprocess.PIPE,
        warm=[f"deploy.sandbox.{service}.app", "deploy.sandbox.server"],
    )


def address(process: Process) -> str:
    """Where a process that was just started listens; waits until it does."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "listens on" in line, line
    return line.split()[-1]
