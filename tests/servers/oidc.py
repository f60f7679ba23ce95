"""npm's oidc-provider: a certified OAuth server that rotates, detects reuse and logs each refresh token shown to it."""

import base64
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import httpx

from deploy.sandbox import clear
from tests.servers.npm import install
from tests.servers.process import end, start, wait_until
from tests.waiting import PATIENCE

# On loopback, in the clear: reading the list of the world's authorities would take longer than the request.
_PLAIN: Any = {"trust_env": False, "verify": False, "timeout": PATIENCE}
HERE = Path(__file__).parents[1] / "peers" / "oidc"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One token shown to the server: a refresh, or a request to revoke."""

    kind: str  # refresh · revocation
    at: float  # when the request arrived, seconds since the epoch
    fingerprint: str  # SHA-256 of the token, hexadecimal
    status: int
    outcome: str  # "ok" or the OAuth error code
    issued: str | None  # the fingerprint of the refresh token in the answer


@dataclass(frozen=True, kw_only=True)
class Oidc:
    """A running server and the one client that is registered with it."""

    issuer: str
    port: int
    pid: int
    client_id: str
    client_secret: str
    redirect_uri: str

    @property
    def authorization_url(self) -> str:
        return f"{self.issuer}/auth"

    @property
    def token_url(self) -> str:
        return f"{self.issuer}/token"

    @property
    def revocation_url(self) -> str:
        return f"{self.issuer}/token/revocation"

    @property
    def introspection_url(self) -> str:
        return f"{self.issuer}/token/introspection"

    @property
    def credentials(self) -> httpx.BasicAuth:
        return httpx.BasicAuth(self.client_id, self.client_secret)

    def log(self, token: str | None = None) -> list[Shown]:
        """What was shown so far, in the order in which the answers were made; of one *token* if it is given."""
        answer = httpx.get(f"http://127.0.0.1:{self.port}/_log", **_PLAIN).raise_for_status()
        shown = [Shown(**entry) for entry in answer.json()]
        return [entry for entry in shown if token is None or entry.fingerprint == fingerprint(token)]

    def consent(self, url: str, *, login: str = "alice", refuse: bool = False) -> str:
        """Do as a person at the authorization *url*, sign in and consent or refuse; gives the callback's full URL."""
        with clear.client() as browser:
            answer = browser.get(url)
            for _ in range(12):
                if answer.is_redirect:
                    target = urljoin(str(answer.request.url), answer.headers["location"])
                    if target.startswith(self.redirect_uri):
                        return target
                    answer = browser.get(target)
                    continue
                answer.raise_for_status()
                page = str(answer.request.url)
                if refuse:
                    answer = browser.get(f"{page}/abort")
                else:
                    prompt = "login" if 'name="login"' in answer.text else "consent"
                    answer = browser.post(page, data={"prompt": prompt, "login": login})
        raise RuntimeError(f"no way from {url} to the callback")

    def grant(self, *, login: str = "alice", scope: str = "openid offline_access api") -> dict[str, Any]:
        """The token answer of a whole code flow with PKCE, for tests that are about what comes after it."""
        verifier = secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        parameters = {
            "client_id": self.client_id, "response_type": "code", "redirect_uri": self.redirect_uri, "scope": scope,
            "state": "s", "code_challenge": challenge, "code_challenge_method": "S256",
        }  # fmt: skip
        callback = self.consent(f"{self.authorization_url}?{urlencode(parameters)}", login=login)
        return self._token(
            grant_type="authorization_code",
            code=parse_qs(urlsplit(callback).query)["code"][0],
            redirect_uri=self.redirect_uri,
            code_verifier=verifier,
        )

    def refresh(self, token: str) -> dict[str, Any]:
        """The answer to a refresh, raised for status: somebody else uses the token."""
        return self._token(grant_type="refresh_token", refresh_token=token)

    def is_active(self, token: str) -> bool:
        """What the server says of an access or refresh token."""
        data = {"token": token}
        answer = httpx.post(self.introspection_url, data=data, auth=self.credentials, **_PLAIN)
        return bool(answer.raise_for_status().json()["active"])

    def _token(self, **form: str) -> dict[str, Any]:
        answer = httpx.post(self.token_url, data=form, auth=self.credentials, **_PLAIN)
        tokens: dict[str, Any] = answer.raise_for_status().json()
        return tokens


def fingerprint(token: str) -> str:
    """How the log names a token."""
    return hashlib.sha256(token.encode()).hexdigest()


@contextmanager
def oidc(
    *,
    redirect_uri: str = "http://127.0.0.1:1/callback",
    access_token_lifetime: timedelta = timedelta(hours=1),
    store_latency: timedelta = timedelta(0),
    client_authentication: str = "client_secret_basic",
    client_jwks: dict[str, Any] | None = None,
    issuer: str | None = None,
) -> Iterator[Oidc]:
    """A running server.

    Nobody needs to listen at *redirect_uri*; several may be given, separated by a space. With *store_latency* its store
    is no longer atomic: two uses of one refresh token can both succeed. *client_jwks* are the public keys of a client
    that authenticates by `private_key_jwt`. *issuer* is another address to be known by, a proxy's.
    """
    install(HERE)
    directory = Path(tempfile.mkdtemp(prefix="aswhom-oidc-"))
    log = directory / "oidc.log"
    secret = secrets.token_hex(16)
    settings = {
        "OIDC_CLIENT_ID": "aswhom",
        "OIDC_CLIENT_SECRET": secret,
        "OIDC_CLIENT_AUTH": client_authentication,
        "OIDC_REDIRECT_URI": redirect_uri,
        "OIDC_ACCESS_TOKEN_SECONDS": str(int(access_token_lifetime.total_seconds())),
        "OIDC_STORE_LATENCY_MS": str(int(store_latency / timedelta(milliseconds=1))),
        **({"OIDC_ISSUER": issuer} if issuer else {}),
        **({"OIDC_CLIENT_JWKS": json.dumps(client_jwks)} if client_jwks else {}),
    }
    ready = directory / "ready.json"
    with ready.open("w") as said:
        # The server ends when this pipe does, where the kernel would not see to it.
        process = start(
            ["node", "--no-warnings", HERE / "server.mjs"],
            log=log,
            environment=os.environ | settings,
            stdin=subprocess.PIPE,
            stdout=said.fileno(),
        )
    try:
        wait_until(lambda: ready.read_text().endswith("\n"), process=process, log=log)
        yield Oidc(
            **json.loads(ready.read_text()),
            pid=process.pid,
            client_id="aswhom",
            client_secret=secret,
            redirect_uri=redirect_uri.split(maxsplit=1)[0],
        )
    finally:
        end(process, signal.SIGKILL)  # it keeps nothing that a clean end would save
        shutil.rmtree(directory)
