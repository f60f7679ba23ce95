"""The ways by which authority is withdrawn, as people and providers go them: each ends with an answer."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import select

from deploy.demo.provision import GITHUB, SLACK
from identity.agents.api_keys import Role
from identity.model import Scope, ScopeKind
from pipeline.revocation.tables import revocations
from tests.servers.process import Process, start
from tests.system.agent import Agent
from tests.system.rig import AGAIN, System

_COMMAND = (sys.executable, "-c", "from deploy.cli import main; main()")


def aswhom(system: System, *command: str) -> Any:
    """What an operator's command prints, which must succeed."""
    done = _run(system, *command)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(system: System, *command: str) -> str:
    """What an operator's command says when it fails, which it must."""
    done = _run(system, *command)
    assert done.returncode != 0, done.stdout
    return str(json.loads(done.stdout)["message"])


def _run(system: System, *command: str) -> subprocess.CompletedProcess[str]:
    run = (*_COMMAND, *command, "--json")
    return subprocess.run(run, env=system.environment, capture_output=True, text=True, timeout=120, check=False)


class Way(StrEnum):
    CLI = "aswhom revoke"
    API = "POST /v1/revocations"
    WEBHOOK = "a webhook of GitHub's"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What whoever revoked was answered, and when."""

    id: str
    returned: datetime
    command: Process | None = None  # which said so, and has the workers to tell yet


def scopes(way: Way) -> list[Scope]:
    """Everything that can be revoked that way: accounts of people and services, people, agents, connections, a tenant.

    By the API it is a tenant's own; GitHub tells of a person's account alone.
    """
    ada = Scope(kind=ScopeKind.ACCOUNT, key=f"acme/{GITHUB}/acme.ada")
    if way is Way.WEBHOOK:
        return [ada]
    keys = [f"acme/{through}/acme.{who}" for through in (GITHUB, "linear-acme") for who in ("ada", "service")]
    own = [
        *(Scope(kind=ScopeKind.ACCOUNT, key=key) for key in (*keys, f"acme/{SLACK}/acme.service")),
        Scope(kind=ScopeKind.USER, key="acme.ada"),
        Scope(kind=ScopeKind.USER, key="acme.service"),
        Scope(kind=ScopeKind.CONNECTION, key="linear-acme"),
        Scope(kind=ScopeKind.TENANT, key="acme"),
    ]
    if way is Way.API:
        return own
    platforms = [Scope(kind=ScopeKind.CONNECTION, key=key) for key in (GITHUB, SLACK)]
    return [*own, Scope(kind=ScopeKind.AGENT, key="devops-assistant"), *platforms]


def ready(system: System, way: Way, scope: Scope, chance: random.Random) -> Callable[[], Answer]:
    """Somebody who will go that *way* at once when called."""
    match way:
        case Way.CLI:
            return _Operator(system, scope)
        case Way.API:
            return _Admin(system, scope)
        case Way.WEBHOOK:
            return _Provider(system, replay=chance.random() < 0.5)


def narrowing(system: System, scope: Scope, *keeps: str) -> Callable[[], Answer]:
    """An admin who will let an account keep only these scopes, at once when called."""
    return _Admin(system, scope, keeps=keeps)


class _Operator:
    """Has typed the command on a terminal, and is being asked whether they are sure."""

    def __init__(self, system: System, scope: Scope) -> None:
        self._system = system
        log = system.directory / "revoke.log"
        log.unlink(missing_ok=True)  # with an earlier question
        self._typing, terminal = os.openpty()
        self._output, written = os.pipe()
        command = (*_COMMAND, "revoke", scope.kind, scope.key, "--reason", "test", "--json")
        system.processes["revoke"] = start(
            command, log=log, environment=system.environment, stdin=terminal, stdout=written
        )
        os.close(terminal)
        os.close(written)
        system.wait(lambda: log.read_text().rstrip().endswith("[y/N]:"), "the command's question")

    def __call__(self) -> Answer:
        process = self._system.processes.pop("revoke")  # that it ends is no fault
        document = ""
        with os.fdopen(self._typing, "w") as typing, os.fdopen(self._output) as output:
            print("y", file=typing, flush=True)
            while not document.endswith("\n}\n"):  # workers are told after it
                document += output.readline() or "\n}\n"
            returned = datetime.now(UTC)
        return Answer(id=json.loads(document)["id"], returned=returned, command=process)


class _Admin:
    """Holds an admin's key of acme's API, made since acme was last revoked."""

    def __init__(self, system: System, scope: Scope, **more: Any) -> None:
        self._system, self._body = system, {"kind": scope.kind, "key": scope.key, "reason": "test", **more}
        self._agent = Agent(system, Role.ADMIN, "security")
        self._agent.headers["Idempotency-Key"] = system.ids("key")

    def __call__(self) -> Answer:
        answers: list[Any] = []

        def taken() -> bool:
            answers.append(self._agent.ask("POST", "revocations", json=self._body))
            return answers[-1].status_code not in AGAIN

        self._system.wait(taken, "that the API takes the revocation")
        returned = datetime.now(UTC)
        assert answers[-1].status_code == 201, answers[-1].text
        return Answer(id=answers[-1].json()["id"], returned=returned)


class _Provider:
    """GitHub says that ada has withdrawn what she had authorized. A *replay* says so too, and it is not true."""

    def __init__(self, system: System, *, replay: bool) -> None:
        self._system, self._replay = system, replay
        self._before = self._known()

    def _known(self) -> set[str]:
        return {row.id for row in self._system.rows(select(revocations.c.id))}

    def __call__(self) -> Answer:
        order = self._system.order
        told = order("github", "authorizations/revoke", user="ada", signal_only=self._replay)
        (delivery,), (status,) = told["deliveries"], told["statuses"]

        def taken() -> bool:
            nonlocal status
            if status in AGAIN:
                status = order("github", "deliver", delivery=delivery)["status"]
            return status not in AGAIN

        self._system.wait(taken, "that GitHub's signal is taken")
        returned = datetime.now(UTC)
        assert status == 202
        (made,) = self._known() - self._before
        return Answer(id=made, returned=returned)
