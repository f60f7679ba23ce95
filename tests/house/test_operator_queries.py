"""Reads of any tenant's rows are for operators; the web reads only rows of the tenants that its caller may see."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT

WEB = ROOT / "webhooks"


def test_the_web_reads_no_row_by_its_id_alone() -> None:
    """`any_job` and its like name no tenant: a page that used one would show a stranger's row."""
    reads = re.compile(r"\bany_(?:job|account|delivery|revocation)\b")
    assert not [str(path) for path in WEB.rglob("*.py") if reads.search(path.read_text())]


def test_the_web_never_means_every_tenant() -> None:
    """It makes `Tenants` only by naming some, apart from the visitor's roles."""
    every = re.compile(r".*(?:\bEVERY_TENANT\b|\bTenants\().*")
    assert [line.strip() for path in WEB.rglob("*.py") for line in every.findall(path.read_text())] == [
        "return Tenants(None if None in held else frozenset(tenant for tenant in held if tenant))"
    ]


def test_no_list_takes_a_forgotten_tenant_for_every_tenant() -> None:
    """A list takes `Tenants`: with an optional tenant, one that is None by mistake would show every customer's rows."""
    views = [*(ROOT / "pipeline" / "views").glob("*.py"), ROOT / "pipeline" / "approvals" / "views.py"]
    optional = re.compile(r"\btenant: str \| None\b")
    assert {path.name for path in views if optional.search(path.read_text())} == {
        "connection_facts.py",  # a sentence about the place of a connection; it reads nothing
        "lookup.py",  # what is found has one or none
        "job_tail.py",  # for the command line only, as the next
        "operator_queries.py",
    }
