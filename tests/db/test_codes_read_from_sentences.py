"""The upgrade that reads once what the code went by from the sentences that an earlier version had written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, LargeBinary, Table, insert, select
from sqlalchemy.types import JSON, BigInteger, Integer, String

from identity.refresh.tables import refresh_intents
from identity.sql.columns import Instant
from identity.tables import accounts, agents, principals, provider_connections, tenants
from pipeline.db.database import Database, DatabaseSettings, open_database
from pipeline.migrations import upgrade
from pipeline.tables import attempts, deliveries, jobs, pinned_configuration, steps

pytestmark = pytest.mark.as_owner

_NOW = datetime(2026, 11, 1, tzinfo=UTC)
_ASKS = "look at github, then say what became of it"


def _filled(table: Table, **given: Any) -> dict[str, Any]:
    """A row of the columns that must be there, as no test here looks at them."""
    of = {Instant: _NOW, JSON: {}, LargeBinary: b"", BigInteger: 0, Integer: 0, String: "x"}
    wanted = [one for one in table.columns if not (one.nullable or one.default or one.server_default)]
    kinds = {one.name: next(value for kind, value in of.items() if isinstance(one.type, kind)) for one in wanted}
    return {**kinds, **given}


class _Former:
    """A ledger as the version before left it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = 0
        self.add(tenants, id="acme")
        self.add(provider_connections, id="gh", tenant_id="acme", provider="github")
        self.add(agents, id="a")
        self.add(pinned_configuration, sha256="0")
        self.add(jobs, id="job_1", tenant_id="acme", agent_id="a", config_sha256="0")
        self.add(steps, id="step_1", job_id="job_1")

    def add(self, table: Table, **given: Any) -> None:
        self._database.write(lambda c: c.execute(insert(table), _filled(table, **given)).rowcount)

    def many(self, table: Table, *rows: dict[str, Any], **of_each: Any) -> None:
        for row in rows:
            self._rows += 1
            self.add(table, **{"id": f"{self._rows:02}", **of_each, **row})


def test_what_the_sentences_of_an_earlier_version_say_is_read_once(database_url: str) -> None:
    database = open_database(DatabaseSettings(url=database_url, turn_timeout=timedelta(minutes=1)))
    upgrade(database, "0066")
    former = _Former(database)
    _parked(former)
    _refreshed(former)
    _tried(former)
    _left_out(former)
    for id, of_job in (("job_2", "job_2"), ("job_3", "another")):
        reason = f"no answer: {_ASKS}, as `aswhom jobs show {of_job}` tells how"
        former.add(jobs, id=id, tenant_id="acme", agent_id="a", config_sha256="0", reason=reason)
    upgrade(database)

    def column(table: Table, name: str) -> list[Any]:
        return database.read(lambda c: _column(c, table, name))

    assert column(accounts, "reconnect_cause") == [
        "unknown",
        "person",
        "dead",
        "dead",
        "expired",
        "refused",
        None,
        None,
    ]
    assert column(refresh_intents, "code") == [
        "unnamed_401", "invalid_scope", "consent_required", "invalid_grant", *[None] * 7, "revoked",
    ]  # fmt: skip
    assert column(refresh_intents, "out_of_date") == [
        *[None] * 4, "overtaken", "overtaken", "revoked", "moved", "deleted", *[None] * 3,
    ]  # fmt: skip
    assert column(attempts, "counts_as") == ["unspent", "unsent", None, None, None, None, None]
    assert column(attempts, "error")[:3] == ["status 502", "not sent", "status 503"]
    assert column(attempts, "number") == [1, 2, 3, 4, 5, 1, 3], "anew only where one number was given twice"
    assert column(deliveries, "left_out") == ["unlisted", "unreached", None, None, None]
    assert column(jobs, "reason")[1:] == [
        f"no answer: {_ASKS}", f"no answer: {_ASKS}, as `aswhom jobs show another` tells how",
    ]  # fmt: skip
    database.close()


def _column(connection: Connection, table: Table, name: str) -> list[Any]:
    return list(connection.execute(select(table.c[name]).order_by(table.c.id)).scalars())


def test_when_all_secrets_were_refused_is_no_time_to_retry_at(database_url: str) -> None:
    database = open_database(DatabaseSettings(url=database_url, turn_timeout=timedelta(minutes=1)))
    upgrade(database, "0071")
    former, before, after = _Former(database), _NOW - timedelta(minutes=1), _NOW + timedelta(minutes=1)
    former.add(principals, id="ada", tenant_id="acme")
    former.add(accounts, id="acc", tenant_id="acme", principal_id="ada", connection_id="gh")
    former.many(
        refresh_intents,
        {"generation": 1, "retry_at": before, "refused_keys": ["one"]},
        {"generation": 2, "retry_at": after, "refused_keys": ["one"]},
        {"generation": 3, "retry_at": None, "refused_keys": ["one"]},
        {"generation": 4, "retry_at": after, "refused_keys": None},
        account_id="acc",
        state="failed",
        finished_at=_NOW,
    )
    upgrade(database)
    found = select(refresh_intents.c.retry_at, refresh_intents.c.refused_since).order_by(refresh_intents.c.id)
    told = database.read(lambda c: [tuple(row) for row in c.execute(found)])
    assert told == [(None, before), (after, None), (None, None), (after, None)]
    database.close()


def _parked(former: _Former) -> None:
    dead = "the provider does not accept its credential any more (invalid_grant)"
    waits = (
        "a refresh's outcome is unknown (no answer in time)",
        "the provider wants its person to sign in or consent anew (login_required)",
        dead,
        "its grant died while it was suspended",
        "its token has ended or was refused, and there is nothing to renew it with",
        "the provider's API refused a freshly renewed token",
        "for nothing that is known",
    )
    rows = [{"state": "needs_reconnect", "reason": reason} for reason in waits]
    for number, row in enumerate([*rows, {"state": "suspended", "reason": dead}], start=1):
        who = f"acme.p{number}"
        former.add(principals, id=who, tenant_id="acme", name=who)
        former.many(accounts, row, tenant_id="acme", connection_id="gh", principal_id=who)


def _refreshed(former: _Former) -> None:
    rows = (
        ("failed", "401 without an error code"),
        ("failed", "invalid_scope"),
        ("unknown", "consent_required"),
        ("dead", "invalid_grant"),
        ("open", "overtaken by a signal"),
        ("unknown", "overtaken by a signal"),
        ("discarded", "revoked"),
        ("discarded", "generation moved"),
        ("discarded", "tenant deleted"),
        ("failed", "it answered 503"),
        ("committed", "success"),
        ("failed", "revoked"),  # a provider's own code
    )
    for generation, (state, outcome) in enumerate(rows):
        row = {"state": state, "outcome": outcome, "generation": generation}
        former.many(refresh_intents, row, account_id="01")


def _tried(former: _Former) -> None:
    rows = (
        ("no_effect", "spends no attempt: status 502"),
        ("no_effect", "not sent"),
        ("no_effect", "status 503"),
        ("unknown", "no answer was recorded before the deadline"),
        ("effect", None),
    )
    errors = [{"state": state, "error": error} for state, error in rows]
    former.many(attempts, *errors, step_id="step_1", job_id="job_1")
    former.add(steps, id="step_2", job_id="job_1", position=2)
    former.many(attempts, {"number": 1, "opened": 9}, {"number": 3, "opened": 8}, step_id="step_2", job_id="job_1")


def _left_out(former: _Former) -> None:
    listed = "own lists its installations, and 77 is not one: `aswhom installations add own 77 acme`"
    rows = (
        ("ignored", listed),
        ("signal", "nobody; no tenant has T9: if one has, end its accounts by hand, and list it: `aswhom …`"),
        ("refused", listed),
        ("ignored", "no workflow wants it"),
        ("accepted", None),
    )
    for number, (outcome, reason) in enumerate(rows):
        row = {"outcome": outcome, "reason": reason, "delivery_id": str(number)}
        former.many(deliveries, row, connection_id="gh")
