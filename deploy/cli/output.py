"""What a command prints: tables and sentences for people on a terminal, or one JSON document for programs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any, Protocol

import click

from deploy.local_times import local_time

Row = Mapping[str, Any]
_NAMED = 10  # of those that were left out


class Bar(Protocol):
    """How far a long work has come."""

    def update(self, n_steps: int) -> None: ...


_NAMED = 10  # of those that were left out


class Output:
    """Where the answer of one command goes. With *as_json*, everything but the document goes to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def rows(self, rows: Sequence[Row], columns: Sequence[str], *, empty: str) -> None:
        """Many of a kind: a table of these columns; as JSON, all there is of each."""
        if self.as_json:
            self.document(list(rows))
        elif not rows:
            click.echo(empty)
        else:
            self.table(rows, columns)

    def page(self, rows: Sequence[Row], columns: Sequence[str], *, limit: int, empty: str) -> None:
        """The first *limit* of many of a kind: *rows* has one beyond if there are more, and that is said."""
        self.rows(rows[:limit], columns, empty=empty)
        if len(rows) > limit:
            self.note(f"only the first {limit} are shown: narrow it down, or say --limit")

    def done(self, sentence: str, document: Row) -> None:
        """One thing that was done."""
        if self.as_json:
            self.document(document)
        else:
            click.echo(sentence)

    def sentence(self, text: str) -> None:
        """For people only."""
        if not self.as_json:
            click.echo(text)

    def line(self, sentence: str, document: Row) -> None:
        """One of a stream that has no end: as JSON, a document a line."""
        click.echo(json.dumps(document, default=_plain, ensure_ascii=False) if self.as_json else sentence)

    def note(self, text: str) -> None:
        """Beside the answer: to standard error, whatever the form."""
        click.echo(text, err=True)

    def left_out(self, refused: Sequence[str]) -> None:
        """Why some of very many were left out: of the first ones, and how many more there are."""
        for why in refused[:_NAMED]:
            self.note(f"left out: {why}")
        if len(refused) > _NAMED:
            self.note(f"and {len(refused) - _NAMED} more")

    def progress(self, length: int, *, what: str, hidden: bool = False) -> AbstractContextManager[Bar]:
        """A bar on a terminal's standard error over so many things; call its `update` with how many were done."""
        hidden = hidden or self.as_json or not sys.stderr.isatty()
        return click.progressbar(length=length, label=what, file=sys.stderr, hidden=hidden)

    def now(self, text: str) -> None:
        """On a terminal's standard error: what a long work is doing now."""
        if not self.as_json and sys.stderr.isatty():
            self.note(text)

    @contextmanager
    def count(self, doing: str) -> Iterator[Callable[[str, int], None]]:
        """On a terminal's standard error: of what so many are done, where nobody knows how many there will be."""
        done = Counter[str]()
        shown = not self.as_json and sys.stderr.isatty()

        def tell(what: str, number: int) -> None:
            done[what] += number
            if shown:
                click.echo(f"\r\x1b[K{doing} {what}: {done[what]:,}", err=True, nl=False)

        try:
            yield tell
        finally:
            if shown and done:
                click.echo(err=True)

    def table(self, rows: Iterable[Row], columns: Sequence[str]) -> None:
        """For people only."""
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column in columns:
            # An id that is cut cannot be copied into the next command.
            table.add_column(column.replace("_", " "), no_wrap=column == "id", overflow="fold")
        for row in rows:
            table.add_row(*(_escaped(_cell(row.get(column))) for column in columns))
        wide = None if sys.stdout.isatty() else 200
        Console(width=wide, highlight=False).print(table)

    def document(self, document: object) -> None:
        """As JSON, whoever reads it."""
        click.echo(as_document(document))


def as_document(document: object) -> str:
    """What --json prints of it."""
    return json.dumps(document, default=_plain, ensure_ascii=False, indent=2)


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return local_time(value)
        case list() | tuple() | set() | frozenset():
            return ", ".join(map(str, value))
        case dict():
            return json.dumps(value, default=_plain, ensure_ascii=False)
        case _:
            return str(value)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case set() | frozenset():
            return sorted(value)
        case Mapping():
            return dict(value)
        case _:
            return str(value)
