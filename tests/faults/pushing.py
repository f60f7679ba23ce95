"""An identity provider that publishes its keys and pushes Security Event Tokens to a running system."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tests.faults.revoking import aswhom
from tests.identity.providers import pretend_provider
from tests.system.rig import AGAIN, System
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
        answers: list[httpx.Response] = []

        def taken() -> bool:
            answers.append(self.system.http.post(f"{self.system.web}/events/idp", content=token, headers=headers))
            return answers[-1].status_code not in AGAIN

        self.system.wait(taken, "that the event is taken")
        return answers[-1]


@contextmanager
def transmitter(system: System) -> Iterator[Pushing]:
    """Register one as an operator does, on the command line."""
    with pretend_provider() as served:
        served.user = json.loads(jwks(KEY))
        tells = ("--issuer", ISSUER, "--audience", AUDIENCE, "--jwks-url", served.url, "--tenant", "acme")
        aswhom(system, "transmitters", "add", "idp", *tells)
        of_ada = ("--tenant", "acme", "--user", "ada", "--external-id", "u-1")
        aswhom(system, "aliases", "add", "--provider", "idp", *of_ada)
        yield Pushing(system=system)
