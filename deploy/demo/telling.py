"""The demo's output: a live table for people, or only a document for programs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]


class Teller(Protocol):
    def line(self, text: str) -> None: ...

    def steps(self, rows: Iterable[Row]) -> None: ...

    def table(self, title: str, rows: Iterable[Row]) -> None: ...

    def verdict(self, disagreements: list[str]) -> None: ...


class Silent:
    """Output for `--json`, where only the document is printed."""

    def line(self, text: str) -> None: ...

    def steps(self, rows: Iterable[Row]) -> None: ...

    def table(self, title: str, rows: Iterable[Row]) -> None: ...

    def verdict(self, disagreements: list[str]) -> None:
        """Print disagreements to standard error, since the document holds only the ledger's view."""
        for disagreement in disagreements:
            sys.stderr.write(f"✗ {disagreement}\n")


WIDTH = 120  # minimum for the tables; a narrower terminal wraps lines itself
COLUMNS = {"job": 6, "action": 28, "principal": 15, "pattern": 10, "status": 7}
EACH = "named by the workflow: "  # common prefix of every step's reason, shown once in the heading


class Spoken:
    """Output for a terminal: a line per step, as it closes."""

    def __init__(self) -> None:
        self._headed = False
        console = Console(highlight=False)
        self._console = console if console.width >= WIDTH else Console(highlight=False, width=WIDTH)

    def line(self, text: str) -> None:
        self._headed = False
        self._console.print(f"\n[bold]{text}[/bold]")

    def steps(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if not self._headed:
                self._headed = True
                heading = _columns({**{name: name for name in COLUMNS}, "principal": "as whom"})
                self._console.print(f"[dim]  {heading}  why: {EACH}…[/dim]")
            colour = {"done": "green", "refused": "yellow", "failed": "red"}.get(str(row["status"]), "cyan")
            shown = {**row, "job": str(row["job"])[-6:]}
            why = str(row["reason"]).removeprefix(EACH)
            self._console.print(f"  [{colour}]{_columns(shown)}[/{colour}]  [dim]{why}[/dim]")

    def table(self, title: str, rows: Iterable[Row]) -> None:
        listed = list(rows)
        drawn = Table(title=title, title_justify="left", title_style="bold")
        for name in listed[0] if listed else ("nothing",):
            drawn.add_column(str(name))
        for row in listed:
            drawn.add_row(*map(_short, row.values()))
        self._console.print(drawn)

    def verdict(self, disagreements: list[str]) -> None:
        if not disagreements:
            self._console.print(
                "\n[bold green]The sandbox's own logs agree with the ledger, step by step.[/bold green]\n"
                "Next, an installation of your own on this machine: docs/howto/try-it-without-a-provider.md"
            )
        for disagreement in disagreements:
            self._console.print(f"[bold red]✗ {disagreement}[/bold red]")


def _short(value: object) -> str:
    """Shorten an id to its distinctive end and a time to its time of day. Return other values unchanged."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
    text = str(value)
    if re.fullmatch(r"[a-z]{2,6}_[0-9a-z]{26}", text):
        return f"…{text[-6:]}"
    moment = re.fullmatch(r"\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d)\.\d+\+00:00", text)
    return f"{moment[1]} UTC" if moment else text


def _columns(row: Row) -> str:
    return " ".join(f"{str(row[name])[:width]:<{width}}" for name, width in COLUMNS.items())
