"""Long work tells a terminal how far it is, and a program its answer alone."""

from __future__ import annotations

import json
import os
import pty
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.cli import main
from deploy.installation import Installation
from deploy.settings import load
from tests.console.console_app import ConsoleApp
from tests.deploy.conftest import Cli

Words = tuple[str, ...]
Begin = Callable[[Cli], Words]
WHOLE = "[####################################]  100%"


@contextmanager
def console_of(cli: Cli) -> Iterator[ConsoleApp]:
    with Installation(load(data_dir=cli.data_dir)) as at:
        console = ConsoleApp(at.ledger)
        yield console
        console.close()


def seal(cli: Cli) -> None:
    cli.json("tenants", "add", "acme")
    cli("audit", "checkpoint")


def verify(cli: Cli) -> Words:
    seal(cli)
    return "audit", "verify"


def export(cli: Cli) -> Words:
    seal(cli)
    return "audit", "export"


def verify_files(cli: Cli) -> Words:
    file = cli.data_dir.parent / "audit.jsonl"
    seal(cli)
    cli("audit", "export", "--output", str(file))
    return "audit", "verify", str(file)


def checkpoint(cli: Cli) -> Words:
    cli.json("tenants", "add", "acme")
    return "audit", "checkpoint"


def rewrap(cli: Cli) -> Words:
    cli.json("connections", "add", "linear", "--client-id", "c", "--client-secret-file", "-", input="s3cret")
    cli.json("keys", "add")
    return "keys", "rewrap"


def replay_jobs(cli: Cli) -> Words:
    with console_of(cli) as console:
        return "jobs", "replay", console.dead("it fell over"), "--yes"


def replay_deliveries(cli: Cli) -> Words:
    with console_of(cli) as console:
        lost = console.dead("it fell over", body=b'{"author": "1001", "text": "x", "installation": {"id": 77}}')
        return "deliveries", "replay", str(console.house.row(lost).delivery_id), "--yes"


def upgrade(cli: Cli) -> Words:
    for file in cli.data_dir.glob("ledger.db*"):
        file.unlink()
    return "db", "upgrade"


@pytest.mark.parametrize(
    ("begin", "shows"),
    [
        (verify, f"verifying  {WHOLE}"),
        (export, f"exporting  {WHOLE}"),
        (verify_files, f"verifying  {WHOLE}"),
        (checkpoint, "sealing records: 1"),
        (rewrap, f"rewrapping  {WHOLE}"),
        (replay_jobs, f"replaying  {WHOLE}"),
        (replay_deliveries, f"replaying  {WHOLE}"),
        (upgrade, "upgrading to 0002 (2 of "),
    ],
)
@pytest.mark.parametrize("as_json", [False, True], ids=["", "json"])
def test_long_work_tells_a_terminal_how_far_it_is_and_a_program_its_answer_alone(
    cli: Cli,
    begin: Begin,
    shows: str,
    as_json: bool,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASWHOM_WORKFLOWS", "tests.console.console_app")
    words = begin(cli)
    capfdbinary.readouterr()
    shown = on_a_terminal([*words, *(["--json"] if as_json else [])], cli.data_dir, monkeypatch)
    printed = capfdbinary.readouterr().out
    what = shows.split(maxsplit=1)[0]
    assert what.encode() not in printed
    if as_json:
        assert what not in shown
        documents = printed.splitlines() if words[1] in ("export", "checkpoint") else [printed]
        assert [json.loads(one) for one in documents]
    else:
        assert shows in shown.replace("\r\n", "\n")


def on_a_terminal(words: list[str], data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command shows on a terminal as its standard error, run to its good end."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        with pytest.raises(SystemExit, match="0"):
            main([*words, "--data-dir", str(data_dir)])
        print(end=".", file=terminal, flush=True)  # there is something to read, whatever was shown
        shown = b""
        while not shown.endswith(b"."):
            shown += os.read(ours, 65536)
    os.close(ours)
    return shown.decode()
