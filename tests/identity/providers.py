"""A pretend provider on loopback: a token endpoint that rotates, told by each test how to answer."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

from tests.servers.web import serving

Reply = tuple[int, dict[str, str], bytes]
JSON = {"content-type": "application/json"}


def reply(document: Any, status: int = 200, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, JSON | named, json.dumps(document).encode()


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A request to end a token."""

    path: str
    headers: dict[str, str]
    body: bytes


class PretendProvider:
    """Remembers every presentation; `answer` may be replaced."""

    def __init__(self) -> None:
        self.url = ""
        self.presented: Counter[str] = Counter()
        self.forms: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.heads: list[dict[str, str]] = []  # of what was posted; the names in lower case
        self.issued = 0
        self.answer: Callable[[dict[str, str]], Reply | None] = self.rotate
        self.user: Any = {"id": 4711, "login": "mona"}
        self.questions: list[dict[str, str]] = []  # the heads of what was read
        self.call: Callable[[str], Reply] = lambda token: reply({"id": "1"})  # its API, by the token of the caller
        self.alive: bool | None = True  # what it says of a token that is checked; None: nothing
        self.checked: list[tuple[dict[str, str], bytes]] = []
        self.ended: list[Ended] = []  # what it was asked to end
        self.ending: Callable[[Ended], Reply | None] = lambda _: (204, {}, b"")
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Remember nothing of what came until now."""
        with self._lock:
            for kept in (self.presented, self.forms, self.bodies, self.heads, self.questions, self.checked, self.ended):
                kept.clear()

    @property
    def asked(self) -> int:
        """How often anything was read."""
        return len(self.questions)

    def received(self, form: dict[str, str]) -> Reply | None:
        with self._lock:
            self.forms.append(form)
            self.presented[form.get("refresh_token", form["grant_type"])] += 1
        return self.answer(form)

    def refuse_client_after(self, act: Callable[[], object]) -> None:
        """Refuse the client once, after *act*: what an operator does while this provider answers. Then rotate, unless
        *act* has said otherwise.
        """

        def answer(form: dict[str, str]) -> Reply:
            self.answer = self.rotate
            act()
            return reply({"error": "incorrect_client_credentials"})

        self.answer = answer

    def rotate(self, form: dict[str, str]) -> Reply:
        with self._lock:
            self.issued += 1
            number = self.issued
        document = {"access_token": f"access-{number}", "token_type": "bearer", "expires_in": 3600}
        if form["grant_type"] != "client_credentials":
            document["refresh_token"] = f"refresh-{number}"
        return reply(document)

    def rotate_after(self, seconds: float) -> Callable[[dict[str, str]], Reply]:
        """Rotate as a provider does that takes so long."""

        def answer(form: dict[str, str]) -> Reply:
            threading.Event().wait(seconds)
            return self.rotate(form)

        return answer


@contextmanager
def pretend_provider() -> Iterator[PretendProvider]:
    provider = PretendProvider()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            provider.bodies.append(body)
            provider.heads.append({name.lower(): value for name, value in self.headers.items()})
            if self.path.startswith("/token"):
                self._send(provider.received(dict(parse_qsl(body.decode()))))
            elif self.path == "/credentials/revoke":
                self._send(self._ended(body))
            elif self.path.startswith("/applications/"):
                provider.checked.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self._send(None if provider.alive is None else ((200 if provider.alive else 404), {}, b"{}"))
            elif self.path.endswith("/access_tokens"):
                form = {"grant_type": "installation", "path": self.path}
                form["authorization"] = self.headers["authorization"]
                self._send(provider.received(form))
            else:
                self._send(provider.call(self.headers["authorization"].removeprefix("Bearer ")))

        def do_DELETE(self) -> None:
            self._send(self._ended(self.rfile.read(int(self.headers.get("content-length", 0)))))

        def _ended(self, body: bytes) -> Reply | None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Ended(path=self.path, headers=headers, body=body)
            provider.ended.append(asked)
            return provider.ending(asked)

        def do_GET(self) -> None:
            provider.questions.append({name.lower(): value for name, value in self.headers.items()})
            self._send(reply(provider.user) if provider.user is not None else (503, {}, b""))

        def _send(self, answer: Reply | None) -> None:
            if answer is None:  # the connection breaks
                self.close_connection = True
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    provider.url = f"http://127.0.0.1:{server.server_address[1]}"
    with serving(server):
        yield provider
