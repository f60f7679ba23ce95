"""Output of a command: tables and sentences on a terminal, or one JSON document for programs."""

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
_NAMED = 10  # items left out that are named one by one


class Bar(Protocol):
    """Progress of a long operation."""

    def update(self, n_steps: int) -> None: ...


class Output:
    """Destination of one command's answer. With *as_json*, everything but the document goes to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def rows(self, rows: Sequence[Row], columns: Sequence[str], *, empty: str) -> None:
        """Print records as a table of these columns, or as JSON with all their fields."""
        if self.as_json:
            self.document(list(rows))
        elif not rows:
            click.echo(empty)
        else:
            self.table(rows, columns)

    def page(self, rows: Sequence[Row], columns: Sequence[str], *, limit: int, empty: str) -> None:
        """Print the first *limit* records. *rows* holds one more if there are more, which is then noted."""
        self.rows(rows[:limit], columns, empty=empty)
        if len(rows) > limit:
            self.note(f"only the first {limit} are shown: narrow it down, or say --limit")

    def done(self, sentence: str, document: Row) -> None:
        """Print the result of one action."""
        if self.as_json:
            self.document(document)
        else:
            click.echo(sentence)

    def sentence(self, text: str) -> None:
        """Print text for people, and nothing with --json."""
        if not self.as_json:
            click.echo(text)

    def line(self, sentence: str, document: Row) -> None:
        """Print one item of an endless stream; with --json, one document a line."""
        click.echo(json.dumps(document, default=_plain, ensure_ascii=False) if self.as_json else sentence)

    def note(self, text: str) -> None:
        """Print a remark to standard error, with or without --json."""
        click.echo(text, err=True)

    def left_out(self, refused: Sequence[str]) -> None:
        """Note why items were left out: the first reasons, and the number of the rest."""
        for why in refused[:_NAMED]:
            self.note(f"left out: {why}")
        if len(refused) > _NAMED:
            self.note(f"and {len(refused) - _NAMED} more")

    def progress(self, length: int, *, what: str, hidden: bool = False) -> AbstractContextManager[Bar]:
        """Show a progress bar over *length* items on standard error, if it is a terminal. `update` takes the number
        done.
        """
        hidden = hidden or self.as_json or not sys.stderr.isatty()
        return click.progressbar(length=length, label=what, file=sys.stderr, hidden=hidden)

    def now(self, text: str) -> None:
        """Say on a terminal's standard error what a long operation is doing now."""
        if not self.as_json and sys.stderr.isatty():
            self.note(text)

    @contextmanager
    def count(self, doing: str) -> Iterator[Callable[[str, int], None]]:
        """Show running counts by kind on a terminal's standard error, for work whose total is unknown."""
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
        """Print a table for people."""
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column in columns:
            # A truncated id cannot be copied into the next command.
            table.add_column(column.replace("_", " "), no_wrap=column == "id", overflow="fold")
        for row in rows:
            table.add_row(*(_escaped(_cell(row.get(column))) for column in columns))
        wide = None if sys.stdout.isatty() else 200
        Console(width=wide, highlight=False).print(table)

    def document(self, document: object) -> None:
        """Print JSON, in either mode."""
        click.echo(as_document(document))


def as_document(document: object) -> str:
    """Return a document as --json prints it."""
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
