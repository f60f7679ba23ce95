"""No secret is where it can be read, after a day on which much went wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from identity.accounts.grants import ACCESS, REFRESH, token_binding
from identity.model import Scope, ScopeKind
from identity.refresh.tables import refresh_intents
from identity.tables import accounts, grants
from pipeline.states import JobState
from tests.faults.conftest import IMPATIENT
from tests.faults.handed import WORKFLOW, Handed
from tests.faults.reading import PREFIXES, answers, command_line, found, pages, places, texts
from tests.servers.process import free_port
from tests.system.rig import WORKFLOWS, System


def secrets_of(world: Any) -> Iterator[str]:
    """Every secret the world was made with, and the lines of its private key."""
    if isinstance(world, list):
        for item in world:
            yield from secrets_of(item)
    elif isinstance(world, dict):
        for name, value in world.items():
            if name.endswith("_pem"):
                yield from (line for line in value.splitlines() if not line.startswith("-----"))
            elif name.endswith(("secret", "token", "internal_key", "restricted_key")):
                yield value
            else:
                yield from secrets_of(value)


def tokens_of(system: System) -> Iterator[str]:
    """The tokens that are sealed in the ledger now."""
    vault = system.runtime.vault
    joined = select(grants, accounts.c.tenant_id, accounts.c.provider).join(accounts)
    for row in system.rows(joined):
        for name, sealed in ((ACCESS, row.access_sealed), (REFRESH, row.refresh_sealed)):
            if sealed is not None:
                binding = token_binding(row.tenant_id, row.account_id, row.provider, name, row.generation)
                yield vault.open(sealed, binding).reveal()


def go_wrong(system: System) -> set[str]:
    """Answers that hold tokens and cannot be read, refusals that quote them, and processes that crash on them."""
    bot = system.world["slack"]["workspaces"][0]["bot_token"]
    echoed = "lin_oauth_" + "c0ffee" * 6
    half = '{"access_token": "lin_oauth_5ca1ab1e5ca1ab1e", "refresh_token": "lin_refresh_5ca1ab1e5ca1ab1e", '
    refused = {"error": "invalid_grant", "error_description": "ghr_5ca1ab1e5ca1ab1e is not known"}

    def fault(service: str, mode: str, endpoint: str, **more: Any) -> None:
        system.order(service, "faults", mode=mode, endpoint=endpoint, **more)

    # An upstream that echoes what it was sent, in a page, in its words and in the place of a code.
    fault("linear", "status", "issueCreate", status=500, body=f"<h1>no</h1> Authorization: Bearer {echoed}")
    fault("github", "status", "create_comment", status=502, body={"message": f"{echoed} went wrong"})
    fault("github", "status", "create_comment", status=422, body={"message": f"Bad token {echoed}", "errors": [echoed]})
    fault("slack", "body", "chat_post_message", body={"ok": False, "error": bot, "needed": bot})
    system.pull("acme/shop", "ada", "bug")
    system.pull("acme/shop", "ada", "infra")
    system.settled()
    # A token endpoint whose answer cannot be read, and one that quotes the token it refuses.
    system.order("auth", "expire", provider="linear", user="ada")
    fault("auth", "body", "token", provider="linear", body=half)
    system.pull("acme/shop", "ada", "bug")
    system.order("auth", "expire", provider="github", user="grace")
    fault("auth", "body", "token", provider="github", body=refused)
    system.pull("acme/shop", "grace", "bug")
    system.settled()
    # Connecting again, and a code that is refused.
    fault("auth", "body", "token", provider="linear", body={"error": bot, "error_description": bot}, status=400)
    with pytest.raises(Exception, match="callback"):
        system.connect("acme", "ada")
    system.connect("acme", "ada", "grace")
    system.settled()
    # A provider that puts a token where the name of an error belongs: it is asked again a minute later.
    system.order("auth", "expire", provider="linear", user="grace")
    fault("auth", "body", "token", provider="linear", body={"error": echoed[:40]}, status=400)
    system.pull("acme/shop", "grace", "bug")
    system.wait(
        lambda: system.count(refresh_intents, refresh_intents.c.outcome.contains("unrecognised")), "its refusal"
    )
    return {bot, echoed}


@pytest.mark.timeout(600)
def test_no_secret_is_where_it_can_be_read(start_system: Any) -> None:
    ports = [free_port() for _ in range(2)]
    system: System = start_system(
        ASWHOM_WORKFLOWS=",".join((*WORKFLOWS, WORKFLOW)),
        ASWHOM_WORKER_METRICS_PORT=str(ports[0]),
        ASWHOM_HOUSEKEEPING_METRICS_PORT=str(ports[1]),
        ASWHOM_LOG_LEVEL="DEBUG",
        **IMPATIENT,
    )
    system.start("web", "worker", "revocations", "housekeeping")
    system.connect("acme", "ada", "grace")
    held = set(tokens_of(system)) | set(secrets_of(system.world))
    held |= go_wrong(system)
    handed = Handed(system)
    held |= handed.canaries | set(tokens_of(system))
    revoked = system.revoke_and_ring(Scope(kind=ScopeKind.USER, key="acme.grace"), "acme")
    system.wait(lambda: system.receipt(revoked), "the receipt")
    with pytest.raises(httpx.WriteError):
        system.http.post(f"{system.web}/webhooks/github/github", content=_breaks_off())
    system.kill("worker")
    held |= set(tokens_of(system))
    assert JobState.DONE in {job.state for job in system.jobs()}
    wanted = {text for secret in held for text in texts(secret)} | set(PREFIXES)
    assert len(held) > 40
    assert found(wanted, answers(system, handed, ports[1:])) == []
    assert found(wanted, pages(system, handed)) == []
    assert found(wanted, command_line(system, handed)) == []
    looked_at = dict(places(system))  # last: all of that is in the logs by now
    for kept in ("worker.log", "housekeeping.log", "web.log", "ledger.sqlite", "ledger.sqlite-wal", ".aof"):
        assert any(name.endswith(kept) for name in looked_at), kept
    assert found(wanted, iter(looked_at.items())) == []


def _breaks_off() -> Iterator[bytes]:
    yield b'{"access_token": "'
    raise httpx.WriteError("gone")


def test_a_canary_would_be_found() -> None:
    """The search itself: plain, in Basic authentication, and by a token's prefix."""
    secret = "5ca1ab1e-5ca1ab1e"
    wanted = set(texts(secret)) | set(PREFIXES)
    basic = base64.b64encode(f"client:{secret}".encode())
    leaks = [("a", secret.encode()), ("c", json.dumps({"x": "ghu_123"}).encode())]
    assert found(wanted, iter(leaks)) == ["a at 0", "c at 7"]
    assert found(wanted, iter([("none", b"nothing"), ("other", basic[:4])])) == []
