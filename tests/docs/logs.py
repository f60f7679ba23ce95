"""The fields of a line of the log, as docs/reference/logs.md lists them."""

from __future__ import annotations

import re

from tests.docs.pages import page, rows


def listed() -> list[frozenset[str]]:
    """What lines have together, a row each."""
    table = page("reference/logs.md").partition("## ")[0]
    return [frozenset(re.findall(r"`(\w+)`", cells[0])) for cells in rows(table)]
