"""How often each job moved to an end since it was accepted, counted by the database itself, whoever moved it.

And after which receipts, which no clock could tell.
"""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Connection, text

from pipeline.states import ENDED
from tests.system.rig import System

_STATES = ", ".join(f"'{state}'" for state in sorted(ENDED))
_MOVED = f"NEW.state IN ({_STATES}) AND OLD.state <> NEW.state"
_NOTE = (
    "INSERT INTO endings VALUES (NEW.id, NEW.accepted);"
    " INSERT INTO endings_after SELECT NEW.id, NEW.accepted, id FROM revocations WHERE revision > 0;"
)
_ON_SQLITE = (f"CREATE TRIGGER ending AFTER UPDATE OF state ON jobs WHEN {_MOVED} BEGIN {_NOTE} END",)
_ON_POSTGRESQL = (
    f"CREATE FUNCTION note_ending() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {_NOTE} RETURN NEW; END $$",
    f"CREATE TRIGGER ending AFTER UPDATE OF state ON jobs FOR EACH ROW WHEN ({_MOVED}) EXECUTE FUNCTION note_ending()",
)


def count_moves_to_an_end(system: System) -> None:
    """From now on."""

    def build(c: Connection) -> None:
        c.execute(text("CREATE TABLE endings (job VARCHAR NOT NULL, accepted BIGINT NOT NULL)"))
        c.execute(text("CREATE TABLE endings_after (job VARCHAR, accepted BIGINT, revocation VARCHAR)"))
        for statement in _ON_SQLITE if c.dialect.name == "sqlite" else _ON_POSTGRESQL:
            c.execute(text(statement))

    system.runtime.database.write(build)


def moves_to_an_end(system: System) -> Counter[tuple[str, int]]:
    """By job, and the number of its acceptance."""
    return Counter((row.job, row.accepted) for row in system.rows(text("SELECT job, accepted FROM endings")))


def ended_after_its_receipt(system: System, revocation: str) -> set[tuple[str, int]]:
    """The jobs, each with the number of its acceptance, that were still under way when that was first issued."""
    after = text("SELECT job, accepted FROM endings_after WHERE revocation = :revocation")
    return {(row.job, row.accepted) for row in system.rows(after.bindparams(revocation=revocation))}


def every_job_ended_once(system: System) -> None:
    """And none of them without being accepted, nor twice: since `count_moves_to_an_end`, which was before the first."""
    assert moves_to_an_end(system) == Counter((job.id, job.accepted) for job in system.jobs())
