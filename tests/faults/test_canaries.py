"""No secret is where it can be read, after a day on which much went wrong."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from identity.api_keys import Role
from identity.console_roles import Held
from identity.console_roles import Role as ConsoleRole
from identity.console_sessions import Person, Via
from identity.console_sessions import begin as begin_session
from identity.grants import ACCESS, REFRESH, token_binding
from identity.model import AccountKey
from identity.secret import Secret
from identity.tables import accounts, grants, refresh_intents
from pipeline.states import JobState
from pipeline.tables import deliveries, jobs
from tests.servers.process import free_port
from tests.system.rig import ROOT, System
from tests.system.test_agents_api import Agent

#: How the sandbox's tokens begin, and GitHub's app's own assertion (RFC 7519, base64url of `{"alg":`).
PREFIXES = (b"ghu_", b"ghr_", b"ghs_", b"lin_oauth_", b"lin_refresh_", b"xoxb-", b"eyJhbGciOi", b"PRIVATE KEY")

COMMANDS = (
    ("doctor",),
    ("connections", "list", "--json"),
    ("accounts", "list", "--json"),
    ("deliveries", "list", "--json"),
    ("jobs", "list", "--json"),
    ("audit", "search", "--json"),
    ("audit", "export"),
    ("audit", "export", "--tenant", "acme"),
    ("audit", "verify"),
    ("revocations", "list", "--json"),
    ("workflows", "list", "--json"),
    ("api-keys", "list", "--json"),
)

_RUN_EACH = """
import json, sys
from deploy.cli import main
for command in json.loads(sys.argv[1]):
    try:
        main(command)
    except SystemExit as ended:
        assert ended.code in (0, 1), command
    print(end="\\0", flush=True)
"""


def secrets_of(world: Any) -> Iterator[str]:
    """Every secret the world was made with, and the lines of its private key."""
    if isinstance(world, list):
        for item in world:
            yield from secrets_of(item)
    elif isinstance(world, dict):
        for name, value in world.items():
            if name.endswith("_pem"):
                yield from (line for line in value.splitlines() if not line.startswith("-----"))
            elif name.endswith(("secret", "token", "internal_key")):
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


def texts(secret: str) -> Iterator[bytes]:
    """A secret, and what it looks like where someone put it into JSON or into Basic authentication."""
    yield secret.encode()
    yield base64.b64encode(secret.encode()).rstrip(b"=")


def places(system: System) -> Iterator[tuple[str, bytes]]:
    """Whatever can be read without the vault's key: name, content."""
    files = [*system.directory.rglob("*"), *system.broker.directory.rglob("*")]
    skipped = ("sandbox-", "world.json", "github.jsonl", "auth.jsonl", "linear.jsonl", "slack.jsonl", "valkey.conf")
    for file in files:
        if file.is_file() and file.parent.name != "keys" and not file.name.startswith(skipped):
            yield str(file), file.read_bytes()
    with system.broker.client() as client:
        for key in client.scan_iter():
            yield f"broker key {key}", str(key).encode() + repr(_value(client, str(key))).encode()
    for process in [process for name, process in system.processes.items() if not name.startswith("sandbox")]:
        yield f"command line of {process.pid}", Path(f"/proc/{process.pid}/cmdline").read_bytes()


def _value(client: Any, key: str) -> object:
    match client.type(key):
        case "string":
            return client.get(key)
        case "list":
            return client.lrange(key, 0, -1)
        case "set":
            return client.smembers(key)
        case "zset":
            return client.zrange(key, 0, -1)
        case "hash":
            return client.hgetall(key)
    raise AssertionError(f"a key of another type: {key}")


def answers(system: System, ports: list[int]) -> Iterator[tuple[str, bytes]]:
    """What the web process and the metrics answer, to those who ask rightly and wrongly."""
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", f"{system.web}/healthz", {}),
        ("GET", f"{system.web}/readyz", {}),
        ("GET", f"{system.web}/metrics", {}),
        ("GET", f"{system.web}/nowhere", {}),
        ("GET", f"{system.web}/connect/nobody", {}),
        ("GET", f"{system.web}/connect/callback/github?state=x&code=y", {}),
        ("POST", f"{system.web}/webhooks/github/github", {"content": b"{}"}),
        ("POST", f"{system.web}/webhooks/github/github", {"json": {}, "headers": {"X-Hub-Signature-256": "sha256=00"}}),
        ("POST", f"{system.web}/webhooks/slack/slack", {"json": {}}),
        *(("GET", f"http://127.0.0.1:{port}/metrics", {}) for port in ports),
    ]
    for method, url, what in asked:
        answer = system.http.request(method, url, **what)
        yield f"{method} {url}", repr(answer.headers.raw).encode() + answer.content


def pages(system: System) -> Iterator[tuple[str, bytes]]:
    """What the console shows an owner, the API a tenant's admin, and the connect page a person; every job there is."""
    token, now, rows = Secret(token_urlsafe(32)), datetime.now(UTC), system.rows
    person = Person(subject="owner", name="owner", via=Via.LINK, held=(Held(role=ConsoleRole.OWNER, tenant=None),))
    begin = partial(begin_session, token=token, person=person, audit_id=system.ids("aud"), now=now)
    system.runtime.database.write(partial(begin, lifetime=timedelta(hours=1)))
    ids = [
        *(f"jobs/{row.id}" for row in rows(select(jobs.c.id).where(jobs.c.tenant_id == "acme"))),
        *(f"accounts/{row.id}" for row in rows(select(accounts.c.id).where(accounts.c.tenant_id == "acme"))),
        *(f"deliveries/{row.id}" for row in rows(select(deliveries.c.id).where(deliveries.c.tenant_id == "acme"))),
    ]
    lists = ["jobs", "accounts", "deliveries", "revocations"]
    console = ["", "dead", "queues", "approvals", "audit", "schedules", "connections", "connections/github"]
    link = system.runtime.connect.start(AccountKey(tenant="acme", connection="github", principal="acme.ada"), now=now)
    agent = Agent(system, Role.ADMIN)
    asked = [
        *((f"console/{path}", {"Cookie": f"aswhom-console={token.reveal()}"}) for path in (*console, *lists, *ids)),
        *((f"v1/{path}", agent.headers) for path in ("tools", *lists, *ids)),
        (f"connect/{link.text}", {}),
    ]
    for path, headers in asked:
        answer = system.http.get(f"{system.web}/{path}", headers=headers)
        assert answer.status_code == 200, path
        yield path, repr(answer.headers.raw).encode() + answer.content


def command_line(system: System) -> Iterator[tuple[str, bytes]]:
    """What each command prints; all of them in one process, which spares their imports."""
    ran = subprocess.run(
        [sys.executable, "-c", _RUN_EACH, json.dumps(COMMANDS)],
        env=system.environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=100,
        check=False,
    )
    *printed, rest = ran.stdout.split(b"\0")
    assert rest == b"", rest.decode()
    assert len(printed) == len(COMMANDS), ran.stdout.decode()
    for command, text in zip(COMMANDS, printed, strict=True):
        yield f"aswhom {' '.join(command)}", text


def found(secret: set[bytes], where: Iterator[tuple[str, bytes]]) -> list[str]:
    """Where a secret is, with the name of the place alone."""
    pattern = re.compile(b"|".join(re.escape(text) for text in sorted(secret)))
    return [f"{name} at {hit.start()}" for name, content in where if (hit := pattern.search(content))]


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


def test_no_secret_is_where_it_can_be_read(start_system: Any) -> None:
    ports = [free_port() for _ in range(2)]
    system: System = start_system(
        ASWHOM_WORKER_METRICS_PORT=str(ports[0]),
        ASWHOM_HOUSEKEEPING_METRICS_PORT=str(ports[1]),
        ASWHOM_LOG_LEVEL="DEBUG",
    )
    system.start("web", "worker", "revocations", "housekeeping")
    system.connect("acme", "ada", "grace")
    held = set(tokens_of(system)) | set(secrets_of(system.world))
    held |= go_wrong(system)
    with pytest.raises(httpx.WriteError):
        system.http.post(f"{system.web}/webhooks/github/github", content=_breaks_off())
    system.kill("worker")
    held |= set(tokens_of(system))
    assert JobState.DONE in {job.state for job in system.jobs()}
    wanted = {text for secret in held for text in texts(secret)} | set(PREFIXES)
    assert len(held) > 20
    looked_at = dict(places(system))
    for kept in ("worker.log", "housekeeping.log", "web.log", "ledger.sqlite", "ledger.sqlite-wal", ".aof"):
        assert any(name.endswith(kept) for name in looked_at), kept
    assert found(wanted, iter(looked_at.items())) == []
    assert found(wanted, answers(system, ports[1:])) == []
    assert found(wanted, pages(system)) == []
    assert found(wanted, command_line(system)) == []


def _breaks_off() -> Iterator[bytes]:
    yield b'{"access_token": "'
    raise httpx.WriteError("gone")


def test_a_canary_would_be_found(tmp_path: Path) -> None:
    """The search itself: plain, in Basic authentication, and by a token's prefix."""
    secret = "5ca1ab1e-5ca1ab1e"
    wanted = set(texts(secret)) | set(PREFIXES)
    basic = base64.b64encode(f"client:{secret}".encode())
    leaks = [("a", secret.encode()), ("c", json.dumps({"x": "ghu_123"}).encode())]
    assert found(wanted, iter(leaks)) == ["a at 0", "c at 7"]
    assert found(wanted, iter([("none", b"nothing"), ("other", basic[:4])])) == []
