"""An identity provider that publishes its keys and pushes Security Event Tokens to a running system."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import httpx

from deploy.demo.provision import GITHUB
from identity.principals import link_alias
from tests.faults.revoking import aswhom
from tests.identity.providers import pretend_provider
from tests.system.rig import AGAIN, System
from tests.webhooks.events import (
    AUDIENCE,
    ISSUER,
    KEY,
    OTHER,
    SESSION_REVOKED,
    TRANSMITTER,
    claims,
    jwks,
    register,
    sign,
)


@dataclass(frozen=True, kw_only=True)
class Pushing:
    """Knows acme's ada as u-1."""

    system: System

    def push(
        self,
        jti: str,
        kind: str = SESSION_REVOKED,
        event: Mapping[str, Any] | None = None,
        *,
        to: str = "idp",
        forged: bool = False,
        **more: Any,
    ) -> httpx.Response:
        """Say an event, about her unless *more* claims say otherwise.

        A *forged* one is signed with a key that the provider does not publish.
        """
        token = sign(claims(event, kind=kind, jti=jti, iat=time.time(), **more), OTHER if forged else KEY)
        headers = {"Content-Type": "application/secevent+jwt"}
        answers: list[httpx.Response] = []

        def taken() -> bool:
            answers.append(self.system.http.post(f"{self.system.web}/events/{to}", content=token, headers=headers))
            return answers[-1].status_code not in AGAIN

        self.system.wait(taken, "that the event is taken")
        return answers[-1]


@contextmanager
def transmitter(system: System) -> Iterator[Pushing]:
    """Register one as an operator does, on the command line."""
    with _published() as url:
        tells = ("--issuer", ISSUER, "--audience", AUDIENCE, "--jwks-url", url, "--tenant", "acme")
        aswhom(system, "transmitters", "add", "idp", *tells)
        of_ada = ("--tenant", "acme", "--user", "ada", "--external-id", "u-1")
        aswhom(system, "aliases", "add", "--provider", "idp", *of_ada)
        yield Pushing(system=system)


@contextmanager
def transmitters(system: System) -> Iterator[Pushing]:
    """Two: acme's `idp`, which knows grace as u-2 besides, and `google`, which tells of the accounts at GitHub."""
    with _published() as url:
        idp = replace(TRANSMITTER, jwks_url=url)
        google, now = replace(idp, id="google", tenant=None, connection=GITHUB), datetime.now(UTC)
        grace: dict[str, Any] = {"principal": "acme.grace", "external_id": "u-2", "login": None, "made_by": "admin:t"}
        system.runtime.database.write(lambda c: register(c, idp, google, now=now))
        linked = system.runtime.database.write(lambda c: link_alias(c, tenant="acme", provider="idp", now=now, **grace))
        assert linked
        yield Pushing(system=system)


@contextmanager
def _published() -> Iterator[str]:
    """Where the provider's keys are."""
    with pretend_provider() as served:
        served.user = json.loads(jwks(KEY))
        yield served.url
