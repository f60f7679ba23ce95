"""Tenants that are added: of two who add the same one, one has. And links of people that are taken back."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, func, select

from identity.audit import Act
from identity.audit.tables import audit
from identity.errors import BadInput
from pipeline.database import Database
from pipeline.desk import tenants
from tests.ledger.acts import until_awaited
from tests.ledger.house import House


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_whoever_adds_a_tenant_while_it_is_added_is_told_that_it_is_there(database: Database) -> None:
    """Neither has seen the other's row. SQLite has one writer anyway."""
    told: list[str] = []

    def add(c: Connection, name: str) -> str:
        return tenants.add(c, "mill", Act(audit_id=f"aud-{name}", by="test", now=datetime.now(UTC)), name=name)

    def add_late() -> None:
        try:
            told.append(database.write(lambda c: add(c, "late")))
        except BadInput as error:
            told.append(str(error))

    late = threading.Thread(target=add_late)
    assert until_awaited(database, lambda c: add(c, "early"), by=late) == "mill.service"
    assert told == ["there is a tenant mill already: choose another id"]
    assert database.read(lambda c: c.execute(select(func.count()).select_from(audit)).scalar_one()) == 1


def take_back(c: Connection, principal: str) -> None:
    ada = {"tenant": "acme", "provider": "github", "external_id": "1001"}
    tenants.remove_alias(c, Act(audit_id="aud-1", by="test", now=datetime.now(UTC)), **ada, principal=principal)


def test_a_link_that_leads_to_somebody_else_by_now_is_not_taken_back(house: House) -> None:
    """Whoever was asked was shown the former."""
    with pytest.raises(BadInput, match=r"is linked to acme\.ada by now, and not to acme\.bob"):
        house.database.write(lambda c: take_back(c, "acme.bob"))
    assert house.database.read(lambda c: tenants.alias(c, "acme", "github", "1001")) == "acme.ada"
    assert house.database.read(lambda c: c.execute(select(audit).where(audit.c.kind == "alias.removed")).all()) == []


def test_a_link_that_is_taken_back_leaves_jobs_with_whom_they_were_accepted_for(house: House) -> None:
    def remove(c: Connection) -> None:
        take_back(c, "acme.ada")

    before = house.job("before")
    house.database.write(remove)
    after = house.job("after")
    assert [house.row(job).user_id for job in (before, after)] == ["acme.ada", None]
    (said,) = house.database.read(lambda c: c.execute(select(audit).where(audit.c.kind == "alias.removed")).all())
    assert (said.tenant_id, said.reason, said.detail["principal"]) == ("acme", "by test", "acme.ada")
    with pytest.raises(BadInput, match="nobody is linked"):
        house.database.write(remove)
