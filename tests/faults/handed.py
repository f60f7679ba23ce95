"""What is handed out in the course of a day, and is authority for whoever has it: keys, cookies, links, tokens."""

from __future__ import annotations

import base64
import json
import re
import secrets
import socket
from datetime import UTC, datetime
from functools import partial
from html import unescape

import httpx

from deploy.demo import payments
from deploy.demo.provision import GITHUB, standard_of
from deploy.fixtures.signing import signature
from deploy.sandbox import clear
from identity.agents.api_keys import Role
from identity.audit import Act
from identity.console import sessions
from identity.model import AccountKey
from identity.secret import Secret
from identity.transmitters import Transmitter, add_transmitter
from tests.sandbox.driver import Form
from tests.system.agent import Agent
from tests.system.rig import System
from tests.waiting import PATIENCE

WORKFLOW = "tasks.invoice_approval"  # the system is to be started with it
SMALL, LARGE = "inv_1001", "inv_1002"  # what a person may ask for, and what a second one has to approve
TRANSMITTER = "idp"


class Handed:
    """Each was used once by whoever it is for; `canaries` are all of them."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._runtime = system.runtime
        self.canaries: set[str] = set()
        self.agent = Agent(system, Role.ADMIN)
        self._holds(self.agent.headers["Authorization"].removeprefix("Bearer "))
        self.session = self._signs_in()
        self.connect_link = self._link()
        self._begins_to_connect()
        self.approval, self.approval_link = self._pays()
        self.capability = self._overheard()
        self.security_event = self._tells()
        self.secret_file = self._keeps()
        self._stammers()

    def _holds(self, *secret: str) -> None:
        self.canaries.update(secret)

    def _browser(self) -> httpx.Client:
        return clear.client(timeout=PATIENCE, headers={"Origin": self._system.web})

    def _signs_in(self) -> str:
        """An owner by a link; the cookie's value."""
        token, now = secrets.token_urlsafe(32), datetime.now(UTC)
        act = Act(audit_id=self._system.ids("aud"), by="cli:root", now=now)
        self._runtime.database.write(lambda c: sessions.make_link(c, Secret(token), act))
        with self._browser() as browser:
            assert browser.get(f"{self._system.web}/console/link/{token}").status_code == 200
            assert browser.post(f"{self._system.web}/console/link/{token}").status_code == 303
            session = browser.cookies["aswhom-console"]
        self._holds(token, session)
        return session

    def _link(self) -> str:
        key = AccountKey(tenant="acme", connection=GITHUB, principal="acme.ada")
        link = self._runtime.connect_flow.start(key, now=datetime.now(UTC)).text
        self._holds(link)
        return link

    def _begins_to_connect(self) -> None:
        """A person's browser on its way to the provider and back, with a code that the provider does not know."""
        link = self._link()
        with self._browser() as browser:
            away = browser.post(f"{self._system.web}/connect/{link}")
            assert away.status_code == 200, away.text
            (url,) = set(re.findall(r'href="([^"]*state=[^"]*)"', away.text))
            state = httpx.URL(unescape(url)).params["state"]
            code = secrets.token_urlsafe(32)
            back = {"state": state, "code": code}
            browser.get(f"{self._system.web}/connect/callback/{GITHUB}", params=back, follow_redirects=True)
            self._holds(state, code, browser.cookies["aswhom-browser"])

    def _pays(self) -> tuple[str, str]:
        """Ada asks for two payments, of which Grace approves one by the link that she is sent: its id, and the link."""
        system, now = self._system, datetime.now(UTC)
        system.start_upstreams(payments.INVOICES)
        payments.provide(self._runtime, system.world, tenants={"acme": ("ada", "grace")}, now=now)
        for invoice in (SMALL, LARGE):
            self._reports("payment.requested", invoice=invoice, requested_by="ada")
        system.wait(lambda: "approval" in [job.wait for job in system.jobs()], "the payment that waits for approval")
        (waiting,) = [job for job in system.jobs() if job.wait == "approval"]
        approval = waiting.waits_for.removeprefix("approval:")
        _, address = self._runtime.approving.invite(approval, "acme.grace", now=datetime.now(UTC))
        self._holds(address.rpartition("/")[2])
        with self._browser() as browser:
            form = Form(browser.get(address).text)
            answer = browser.post(address, data={**form.hidden, "answer": "yes"})
        assert answer.status_code == 200, answer.text
        system.wait(lambda: len(system.sandbox(payments.INVOICES, "movements")) == 2, "both payments")
        return approval, address.removeprefix(f"{system.web}/")

    def _reports(self, kind: str, **data: str) -> None:
        """A tenant's own system, which signs what it says."""
        (own,) = [one for one in self._system.world["standard"] if one["tenant"] == "acme"]
        now = datetime.now(UTC)
        body = json.dumps({"type": kind, "timestamp": now.isoformat(), "data": data}).encode()
        headers = signature("standard", kind, body, Secret(own["secret"]), now=now)
        url = f"{self._system.web}/webhooks/standard/{standard_of('acme')}"
        answer = self._system.http.post(url, content=body, headers={"Content-Type": "application/json", **headers})
        assert answer.status_code == 202, answer.text

    def _overheard(self) -> str:
        """The capability tokens that the invoices were shown; the last of them."""
        wire = self._system.sandbox(payments.INVOICES, "wire")
        tokens = [one["authorization"].removeprefix("Bearer ") for one in wire]
        assert len(tokens) >= 4, "each payment was read, then made"
        self._holds(*tokens)
        return str(tokens[-1])

    def _tells(self) -> str:
        """A transmitter whose keys are not those that its token is signed with; the token."""
        transmitter = Transmitter(
            id=TRANSMITTER,
            issuer="https://idp.example",
            audience=self._system.web,
            jwks_url=f"{self._system.web}/.well-known/jwks.json",
            tenant="acme",
            connection=None,
        )
        add = partial(add_transmitter, new=transmitter, now=datetime.now(UTC))
        assert self._runtime.database.write(add)
        parts = ({"alg": "RS256", "typ": "secevent+jwt", "kid": "1"}, {"jti": secrets.token_hex(16)})
        encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
        token = ".".join([*encoded, secrets.token_urlsafe(256)])
        self._holds(token)
        return token

    def _keeps(self) -> str:
        """A file with a secret in it, for the command line; where the search does not look."""
        canary = secrets.token_urlsafe(32)
        self._holds(canary)
        file = self._system.directory / "keys" / "given"
        file.write_text(canary)
        return str(file)

    def _stammers(self) -> None:
        """Requests that no server can read, with what is held in their line and in their head."""
        key = self.agent.headers["Authorization"]
        for sent in (f"GET /{self.approval_link} and more HTTP/1.1\r\n\r\n", f"GET / HTTP/1.1\r\n{key}\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", self._system.port), timeout=PATIENCE) as connection:
                connection.sendall(sent.encode())
                assert connection.recv(15).startswith(b"HTTP/1.1 400")
