"""Every command of docs/howto/try-it-without-a-provider.md runs, in the order of the page, and does as it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from deploy.demo import page_form
from tests.docs.pages import blocks, page
from tests.servers.process import free_port
from tests.waiting import eventually

BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a minute of two processors

STARTED, UP, CONNECTED, WORKED, LOOKED, ASKED, SIGNED, OWN, REVOKED = range(9)


class Terminals:
    """The page's terminals, in one folder: its ports are replaced by free ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands = blocks(page("howto/try-it-without-a-provider.md"), "sh")
        self.ports = {old: str(free_port()) for old in ("8701", "8702", "8080")}
        self.web = f"http://127.0.0.1:{self.ports['8080']}"
        self.running: list[subprocess.Popen[bytes]] = []
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("ASWHOM_")} | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "ASWHOM_LISTEN": self.web.removeprefix("http://"),
            **{f"ASWHOM_{one}_METRICS_PORT": "0" for one in ("WORKER", "REVOCATIONS", "HOUSEKEEPING", "BEAT")},
        }

    def start(self, number: int, *, log: str) -> None:
        """Run a block whose last command stays."""
        head, _, last = self._text(number).rstrip().rpartition("\n")
        with (self.folder / log).open("wb") as output:
            self.running.append(
                subprocess.Popen(
                    ["bash", "-euc", f"{head}\nexec {last}"],
                    cwd=self.folder,
                    env=self._environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )

    def is_ready(self) -> bool:
        """Whether the web answers; AssertionError once something has ended that is to stay."""
        assert all(one.poll() is None for one in self.running), (self.folder / "up.out").read_text()
        try:
            return httpx.get(f"{self.web}/readyz", trust_env=False, timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def run(self, number: int, **placeholders: str) -> str:
        """Run a block to its end in a shell that has the exports of step 3. What it printed."""
        exports = "".join(f"{line}\n" for line in self._text(CONNECTED).splitlines() if line.startswith("export "))
        text = self._text(number)
        for name, value in placeholders.items():
            text = text.replace(name, value)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", exports + text],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    def aswhom(self, *arguments: str) -> Any:
        """A command of ours, as JSON."""
        done = subprocess.run(
            [BIN / "aswhom", *arguments, "--json"],
            cwd=self.folder,
            env=self._environment
            | {"ASWHOM_WORKFLOWS": "triage_bot.workflow", "ASWHOM_WORKFLOWS_DIR": f"{self.folder}/triage_bot"},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return json.loads(done.stdout)

    def _text(self, number: int) -> str:
        text = self.commands[number]
        for old, new in self.ports.items():
            text = text.replace(old, new)
        if number == STARTED:
            text = f"{text.rstrip()} --web {self.web} --port {self.ports['8701']} --oauth-port {self.ports['8702']}\n"
        return text


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    terminals = Terminals(tmp_path)
    yield terminals
    for process in reversed(terminals.running):
        process.terminate()
        process.wait(60)


def consent(link: str) -> None:
    """Ada, in her browser."""
    with httpx.Client(follow_redirects=True, trust_env=False, timeout=30) as browser:
        leads = re.search(r'content="0; url=([^"]+)"', browser.post(link).text)
        assert leads
        asked = browser.get(unescape(leads[1]))
        action = page_form.action(asked.text)
        assert action
        said = {**page_form.hidden(asked.text), "user": "ada", "decision": "allow"}
        assert browser.post(urljoin(str(asked.url), action), data=said).status_code == 200


def steps(terminals: Terminals, job: str) -> list[tuple[str, str, str]]:
    return [
        (one["action"], one["principal_id"], one["state"]) for one in terminals.aswhom("jobs", "show", job)["steps"]
    ]


def is_done(terminals: Terminals, job: str) -> bool:
    return bool(terminals.aswhom("jobs", "show", job)["state"] == "done")


def test_every_command_of_the_page_runs_and_does_as_it_says(terminals: Terminals) -> None:
    assert len(terminals.commands) == REVOKED + 1
    terminals.start(STARTED, log="sandbox.out")
    eventually((terminals.folder / "sandbox" / "app.pem").exists, log=terminals.folder / "sandbox.out")
    terminals.start(UP, log="up.out")
    eventually(terminals.is_ready, seconds=300, log=terminals.folder / "up.out")

    (link,) = re.findall(r"^http://\S+/connect/\S+$", terminals.run(CONNECTED), re.MULTILINE)
    consent(link)
    terminals.run(WORKED)
    eventually(lambda: terminals.aswhom("jobs", "list"), seconds=60)
    (job,) = (one["id"] for one in terminals.aswhom("jobs", "list"))
    eventually(lambda: is_done(terminals, job), seconds=60, log=terminals.folder / "up.out")
    as_said = [("github.AddLabels", "acme.service", "done"), ("github.Comment", "acme.ada", "done")]
    assert steps(terminals, job) == as_said
    assert "named by the workflow" in terminals.run(LOOKED, JOB=job)
    assert json.loads(terminals.run(ASKED))["outcome"] == "done"

    signed = json.loads(terminals.run(SIGNED))
    assert signed["outcome"] == "accepted"
    (job,) = signed["jobs"]
    eventually(lambda: is_done(terminals, job), seconds=60, log=terminals.folder / "up.out")
    assert steps(terminals, job) == as_said
    assert '"outcome":"ignored"' in terminals.run(OWN).replace(" ", "")
    assert "user:acme.ada was revoked at" in terminals.run(REVOKED)
    terminals.run(WORKED)
    eventually(lambda: terminals.aswhom("jobs", "list")[0]["wait"] == "consent", seconds=60)
    assert steps(terminals, terminals.aswhom("jobs", "list")[0]["id"])[0] == as_said[0]
