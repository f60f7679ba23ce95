"""A ledger that `pg_dump` wrote, restored as docs/operations.md says: what was withdrawn stays withdrawn."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from identity.audit.chain import Verified
from identity.audit.sealer import Sealer
from identity.audit.verification import verify
from identity.keys.trusted_keys import TrustedKeys
from identity.model import Scope, ScopeKind
from identity.sql.sequence import next_number
from pipeline.db.database import Database
from pipeline.jobs.intents import Ended, Opened
from pipeline.ledger.revision import newest, revision_of
from pipeline.migrations.shape import lacks
from tests.ledger.acts import SIGNER, open_, revoke
from tests.ledger.house import House, account_scope, intent_of
from tests.ledgers import open_ledger
from tests.servers.postgres import Postgres
from tests.waiting import PATIENCE

pytestmark = pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)

Restore = Callable[..., Database]


@pytest.fixture
def restored(postgres: Postgres, ledger_url: str, tmp_path: Path) -> Iterator[Restore]:
    """Dumps the ledger as it is, and opens what is made of that in an empty database."""
    opened: list[Database] = []
    made: list[str] = []
    reach = ("--host", str(postgres.directory), "--username", postgres.user)

    def restore(*options: str) -> Database:
        dump = tmp_path / f"ledger-{len(made)}.dump"
        name = make_url(ledger_url).database or ""
        made.append(postgres.create_database())
        commands: tuple[list[str | Path], ...] = (
            [postgres.binaries / "pg_dump", *reach, "--format", "custom", "--file", dump, name],
            [postgres.binaries / "pg_restore", *reach, "--dbname", made[-1], *options, dump],
        )
        for command in commands:
            subprocess.run(command, check=True, timeout=PATIENCE)
        opened.append(open_ledger(postgres.url(made[-1])))
        return opened[-1]

    yield restore
    for database in opened:
        database.close()
    for name in made:
        postgres.drop_database(name)


AS_DOCUMENTED = ("--exit-on-error", "--single-transaction", "--no-owner")


@pytest.mark.parametrize("scope", [account_scope(), Scope(kind=ScopeKind.TENANT, key="acme")])
def test_what_was_revoked_before_a_dump_opens_no_step_after_it_was_restored(
    house: House, restored: Restore, scope: Scope
) -> None:
    job = house.claim(house.job())
    before = House(restored(*AS_DOCUMENTED))
    assert isinstance(open_(before, intent_of(before, job)), Opened)
    revoke(house, scope)
    last = house.database.write(next_number)
    after = House(restored(*AS_DOCUMENTED))
    assert isinstance(open_(after, intent_of(after, job)), Ended)
    assert after.database.write(next_number) > last, "a revocation has to come after the consents that it withdraws"


def test_a_restored_ledger_lacks_nothing_and_its_audit_holds(house: House, restored: Restore) -> None:
    revoke(house, account_scope())
    sealer = Sealer(house.database, SIGNER)
    while sealer.seal(now=datetime.now(UTC)):
        pass
    database = restored(*AS_DOCUMENTED)
    assert (revision_of(database), database.read(lacks)) == (newest(), [])
    assert isinstance(verify(database, TrustedKeys(SIGNER.public_key())), Verified)
    with pytest.raises(DBAPIError, match="append-only"):
        database.write(lambda c: c.execute(text("update audit set outcome = 'well'")))


@pytest.mark.usefixtures("house")
def test_a_restore_that_was_broken_off_is_seen(restored: Restore) -> None:
    """The revision is there, which alone starts the processes, and neither keys nor triggers are."""
    database = restored("--section", "pre-data", "--section", "data", "--no-owner")
    assert revision_of(database) == newest()
    found, idles = database.read(
        lambda c: (lacks(c), c.execute(text("show idle_in_transaction_session_timeout")).scalar_one())
    )
    assert idles == "1min", "a busy machine may compare for longer than a process is let idle"
    assert "table scopes lacks its primary key" in found
    assert "trigger audit_no_change is not there, or disabled" in found
