"""Wherever something can be read without the vault's key: files, the broker, answers, pages, the command line."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from identity.tables import accounts
from pipeline.revocation.tables import revocations
from pipeline.tables import deliveries, jobs
from tests.faults.handed import TRANSMITTER, Handed
from tests.system.rig import ROOT, System

#: How the sandbox's tokens begin, and every token that is signed (RFC 7519, base64url of `{"alg":` and `{"typ":`).
PREFIXES = (
    b"ghu_", b"ghr_", b"ghs_", b"lin_oauth_", b"lin_refresh_", b"xoxb-", b"eyJhbGciOi", b"eyJ0eXAiOi", b"PRIVATE KEY",
)  # fmt: skip

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


def texts(secret: str) -> Iterator[bytes]:
    """A secret, and what it looks like where someone put it into JSON or into Basic authentication."""
    yield secret.encode()
    yield base64.b64encode(secret.encode()).rstrip(b"=")


def found(secret: set[bytes], where: Iterator[tuple[str, bytes]]) -> list[str]:
    """Where a secret is, with the name of the place alone."""
    pattern = re.compile(b"|".join(re.escape(text) for text in sorted(secret)))
    return [f"{name} at {hit.start()}" for name, content in where if (hit := pattern.search(content))]


def places(system: System) -> Iterator[tuple[str, bytes]]:
    """Whatever is stored, queued or started: name, content."""
    files = [*system.directory.rglob("*"), *system.broker.directory.rglob("*")]
    journals = tuple(
        f"{name.removeprefix('sandbox-')}.jsonl" for name in system.processes if name.startswith("sandbox")
    )
    skipped = ("sandbox-", "world.json", "valkey.conf", *journals)
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


def answers(system: System, handed: Handed, ports: list[int]) -> Iterator[tuple[str, bytes]]:
    """What the web process and the metrics answer, to those who ask rightly and wrongly."""
    web, key = system.web, handed.agent.headers["Authorization"]
    service = (system.world["invoices"]["audience_id"], system.world["invoices"]["audience_secret"])
    exchange = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "subject_token": handed.capability,
    }
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", f"{web}/healthz", {}),
        ("GET", f"{web}/readyz", {}),
        ("GET", f"{web}/metrics", {}),
        ("GET", f"{web}/nowhere", {}),
        ("GET", f"{web}/connect/nobody", {}),
        ("GET", f"{web}/connect/callback/github?state=x&code=y", {}),
        ("POST", f"{web}/webhooks/github/github", {"content": b"{}"}),
        ("POST", f"{web}/webhooks/github/github", {"json": {}, "headers": {"X-Hub-Signature-256": "sha256=00"}}),
        ("POST", f"{web}/webhooks/slack/slack", {"json": {}}),
        *(("GET", f"http://127.0.0.1:{port}/metrics", {}) for port in ports),
        # What is held is shown where it is worth nothing, or is not quite what it was.
        ("GET", f"{web}/v1/jobs", {"headers": {"Authorization": f"{key}x"}}),
        ("GET", f"{web}/v1/jobs?limit={handed.session}", {"headers": {"Authorization": key}}),
        ("POST", f"{web}/v1/jobs/{handed.session}/cancel", {"json": {"key": key}, "headers": {"Authorization": key}}),
        ("POST", f"{web}/console/jobs/x/cancel", {"headers": {"Cookie": f"aswhom-console={handed.session}"}}),
        ("GET", f"{web}/console/", {"headers": {"Cookie": f"aswhom-console={handed.session[:-1]}"}}),
        ("POST", f"{web}/{handed.approval_link}", {"data": {"answer": "no", "digest": "another"}}),
        ("GET", f"{web}/{handed.approval_link}x", {}),
        ("GET", f"{web}/connect/{handed.connect_link}x", {}),
        ("POST", f"{web}/oauth/introspect", {"auth": service, "data": {"token": handed.capability}}),
        ("POST", f"{web}/oauth/introspect", {"auth": service, "data": {"token": f"{handed.capability}x"}}),
        ("POST", f"{web}/oauth/introspect", {"auth": (service[0], f"{service[1]}x"), "data": {"token": "x"}}),
        ("POST", f"{web}/oauth/token", {"auth": service, "data": {**exchange, "audience": handed.capability}}),
        ("POST", f"{web}/oauth/token", {"auth": service, "data": {**exchange, "grant_type": handed.capability}}),
        *(
            ("POST", f"{web}/events/{name}", {"content": handed.security_event, "headers": {"Content-Type": kind}})
            for name, kind in ((TRANSMITTER, "application/secevent+jwt"), (TRANSMITTER, "text/plain"))
        ),
    ]
    for method, url, what in asked:
        answer = system.http.request(method, url, **what)
        assert answer.status_code < 500, (method, httpx.URL(url).path.split("/")[1])
        yield f"{method} {httpx.URL(url).path[:12]}", repr(answer.headers.raw).encode() + answer.content


def _ids(system: System) -> Iterator[tuple[str, str]]:
    """What there is of acme, by the name of its list."""
    for name, table in (("jobs", jobs), ("accounts", accounts), ("deliveries", deliveries)):
        for row in system.rows(select(table.c.id).where(table.c.tenant_id == "acme")):
            yield name, row.id
    for row in system.rows(select(revocations.c.id)):
        yield "revocations", row.id


def pages(system: System, handed: Handed) -> Iterator[tuple[str, bytes]]:
    """What the console shows an owner, the API a tenant's admin, and links a person; every job there is."""
    ids = [f"{name}/{id}" for name, id in _ids(system)]
    lists = ["jobs", "accounts", "deliveries", "revocations"]
    console = ["", "dead", "queues", "approvals", f"approvals/{handed.approval}", "audit", "schedules", "connections"]
    shown = [*console, "connections/github", "revoke?kind=user&key=acme.ada", *lists, *ids]
    asked = [
        *((f"console/{path}", {"Cookie": f"aswhom-console={handed.session}"}) for path in shown),
        *((f"v1/{path}", handed.agent.headers) for path in ("tools", *lists, *ids)),
        (f"connect/{handed.connect_link}", {}),
        (handed.approval_link, {}),
    ]
    for path, headers in asked:
        answer = system.http.get(f"{system.web}/{path}", headers=headers)
        assert answer.status_code == 200, path
        yield path, repr(answer.headers.raw).encode() + answer.content


def commands(system: System, handed: Handed) -> Iterator[tuple[str, ...]]:
    """What an operator types, of a job in each state; the last three fail, two of them with a secret in hand."""
    yield ("doctor",)
    for noun in ("connections", "accounts", "deliveries", "jobs", "revocations", "workflows", "api-keys", "approvals"):
        yield (noun, "list", "--json")
    yield from (("audit", "search", "--json"), ("audit", "export"), ("audit", "export", "--tenant", "acme"))
    yield from (("audit", "verify"), ("transmitters", "list", "--json"), ("approvals", "list", "--state", "all"))
    yield from (("capability", "list", "--json"), ("capability", "audiences", "list", "--json"))
    yield ("capability", "keys", "list", "--json")
    for name, id in dict(_ids(system)).items():
        yield from ((name, "show", id), (name, "show", id, "--json"))
    for id in {job.state: job.id for job in system.jobs()}.values():
        yield from (("jobs", "show", id), ("policy", "explain", id), ("tail", id, "--timeout", "0", "--json"))
    yield from (("approvals", "show", handed.approval), ("approvals", "show", handed.approval, "--json"))
    yield ("tail", "--timeout", "0")
    yield ("approvals", "link", handed.approval, "--for", "acme.grace")
    yield ("connections", "rotate-secret", "nobody", "--file", handed.secret_file)
    yield ("connections", "rotate-webhook-secret", "standard-acme", "--file", handed.secret_file, "--yes")


def command_line(system: System, handed: Handed) -> Iterator[tuple[str, bytes]]:
    """What each command prints; all of them in one process, which spares their imports."""
    typed = list(commands(system, handed))
    ran = subprocess.run(
        [sys.executable, "-c", _RUN_EACH, json.dumps(typed)],
        env=system.environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=100,
        check=False,
    )
    *printed, rest = ran.stdout.split(b"\0")
    assert rest == b"", rest.decode()
    assert len(printed) == len(typed), ran.stdout.decode()
    for text in printed[-3:]:
        assert b"aswhom: " in text, text.decode()
    for command, text in zip(typed, printed, strict=True):
        yield f"aswhom {' '.join(command)}", text
