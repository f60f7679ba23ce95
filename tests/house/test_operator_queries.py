"""Reads by id alone, whatever the tenant, are for operators; the web reads one tenant's rows by `tenant_views`."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT


def test_the_web_reads_no_row_by_its_id_alone() -> None:
    """`any_job` and its like name no tenant: a page that used one would show a stranger's row."""
    reads = re.compile(r"\bany_(?:job|account|delivery|revocation)\b|\bEVERY_TENANT\b|\btenant_views\.\w+\(\w+, None\b")
    found = [str(path) for path in (ROOT / "webhooks").rglob("*.py") if reads.search(path.read_text())]
    assert not found
