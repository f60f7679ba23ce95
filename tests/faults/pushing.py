"""An identity provider that publishes its keys and pushes Security Event Tokens to a running system."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tests.identity.providers import pretend_provider
from tests.system.rig import System
from tests.webhooks.events import AUDIENCE, ISSUER, KEY, OTHER, claims, jwks, sign


@dataclass(frozen=True, kw_only=True)
class Pushing:
    """Knows acme's ada as u-1."""

    system: System

    def push(self, jti: str, *, forged: bool = False) -> httpx.Response:
        """Say that her session was revoked. A *forged* one is signed with a key that the provider does not publish."""
        said = claims(jti=jti, iat=time.time())
        token = sign(said, OTHER if forged else KEY)
        headers = {"Content-Type": "application/secevent+jwt"}
        return self.system.http.post(f"{self.system.web}/events/idp", content=token, headers=headers)


@contextmanager
def transmitter(system: System) -> Iterator[Pushing]:
    """Register one as an operator does, on the command line."""
    with pretend_provider() as served:
        served.user = json.loads(jwks(KEY))
        tells = ("--issuer", ISSUER, "--audience", AUDIENCE, "--jwks-url", served.url, "--tenant", "acme")
        _say(system, "transmitters", "add", "idp", *tells)
        _say(system, "aliases", "add", "--tenant", "acme", "--user", "ada", "--provider", "idp", "--external-id", "u-1")
        yield Pushing(system=system)


def _say(system: System, *command: str) -> None:
    run = [sys.executable, "-c", "from deploy.cli import main; main()", *command]
    done = subprocess.run(run, env=system.environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
