"""The sandbox provider as the tests of the thirty cases meet it: a process, and what it is told and asked."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from deploy.sandbox import clear
from tests.servers import process as processes

COMMAND = (sys.executable, "-c", "from deploy.cli import main; main()", "sandbox", "provider")


class Provider:
    """`aswhom sandbox provider`, running."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.url: str = facts["api_url"]
        self.http = clear.client(base_url=self.url, timeout=20)
        self._since = 0

    def play(self, case: int, **options: Any) -> None:
        """Begin *case* from its start. The log goes on, and is read from here."""
        self._ordered(self.http.put("/_sandbox/case", json={"case": case, **options}))
        self._since = len(self._ordered(self.http.get("/_sandbox/log")).json())

    def wait(self, how_long: timedelta) -> None:
        """Time passes at the provider."""
        self._ordered(self.http.post("/_sandbox/clock", json={"seconds": how_long.total_seconds()}))

    def release(self) -> None:
        """What is answered late is answered now."""
        self._ordered(self.http.post("/_sandbox/release"))

    def send_signals(self, *which: int) -> list[int]:
        """The case's signals, in their order, or those *which* alone; what the receiver answered to each."""
        order = {"which": which} if which else {}
        statuses: list[int] = self._ordered(self.http.post("/_sandbox/signals", json=order)).json()["statuses"]
        return statuses

    def consent(self, *scopes: str) -> httpx.Response:
        """A person allows it in a browser; the token endpoint's answer to the code."""
        verifier, back = secrets.token_urlsafe(48), "http://127.0.0.1/callback"
        digest = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": "client",
            "redirect_uri": back,
            "scope": " ".join(scopes),
            "state": "s",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "user": "anna",
            "decision": "allow",
        }
        sent_back = self.http.post("/authorize", data=asked)
        (code,) = parse_qs(urlsplit(sent_back.headers["location"]).query)["code"]
        return self.token(grant_type="authorization_code", code=code, code_verifier=verifier, redirect_uri=back)

    def token(self, **form: str) -> httpx.Response:
        client = {"client_id": "client", "client_secret": "client-canary"}
        return self.http.post("/token", data=form | client, headers={"Accept": "application/json"})

    def presentations(self, kind: str = "refresh_token") -> list[dict[str, Any]]:
        """What was presented of that kind, in order."""
        rows: list[dict[str, Any]] = self._ordered(self.http.get("/_sandbox/presentations")).json()
        return [row for row in rows if row["kind"] == kind]

    def outcomes(self) -> list[str]:
        """What became of each refresh token that was presented."""
        return [row["outcome"] for row in self.presentations()]

    def most_presented(self) -> int:
        """How often the refresh token that was presented most was."""
        return max(Counter(row["fingerprint"] for row in self.presentations()).values(), default=0)

    def requests(self, path: str) -> list[dict[str, Any]]:
        log = self._ordered(self.http.get("/_sandbox/log", params={"since": self._since}))
        rows: list[dict[str, Any]] = log.json()
        return [row for row in rows if row["path"] == path]

    def takes(self, token: str) -> bool:
        """Whether a call with that access token gets through."""
        return self.http.get("/user", headers={"Authorization": f"Bearer {token}"}).status_code == 200

    @staticmethod
    def _ordered(response: httpx.Response) -> httpx.Response:
        assert response.is_success, response.text
        return response


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Provider]:
    """The provider on a free port, until the end of the block."""
    log = folder / "provider.log"
    process = processes.start([*COMMAND, "--port", "0", "--json", *arguments], log=log, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, processes.tail(log)
        provider = Provider(json.loads(line))
        with provider.http:
            yield provider
    finally:
        processes.end(process)
    assert process.returncode == 0, processes.tail(log)
