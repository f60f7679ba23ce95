"""Jobs, steps and attempts are tried from each state to each: they move as their tables allow, and not otherwise."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from itertools import product
from typing import Any

from sqlalchemy import Connection, Table, select, update

from identity.sql.state_machine import IllegalMove, Moves
from pipeline.db.database import Database
from pipeline.jobs.moves import move_attempt, move_job, move_step, moving_job
from pipeline.states import ATTEMPT_MOVES, JOB_MOVES, STEP_MOVES, AttemptState, JobState, StepState
from pipeline.tables import attempts, jobs, steps
from tests.ledger.acts import open_
from tests.ledger.house import House
from tests.ledger.house import intent_of as intent

Pairs = set[tuple[Any, Any]]

# What a person's replay alone opens again, with the whole job.
REOPENED = {(ended, StepState.OPEN) for ended in set(StepState) - {StepState.OPEN, StepState.UNKNOWN}}


def allowed(moves: Moves[Any]) -> Pairs:
    return {(source, to) for source, targets in moves.allowed.items() for to in targets}


def moved(
    database: Database, table: Table, states: type[StrEnum], move: Callable[[Connection, Any, Any], object]
) -> Pairs:
    """The moves that come about, of the table's one row, which is put into each state before each."""

    def try_all(c: Connection) -> Pairs:
        found: Pairs = set()
        for source, to in product(states, repeat=2):
            c.execute(update(table).values(state=source))
            if move(c, source, to):
                found.add((source, to))
            came_to = to if (source, to) in found else source
            assert c.execute(select(table.c.state)).scalar_one() == came_to, f"{source} to {to}"
        return found

    return database.write(try_all)


def test_a_job_moves_only_as_the_table_allows(house: House) -> None:
    job = house.job()
    assert moved(house.database, jobs, JobState, lambda c, _, to: move_job(c, job, to)) == allowed(JOB_MOVES)


def test_a_mover_of_a_job_that_names_its_state_is_told_of_a_move_that_there_is_not(house: House) -> None:
    job, refused = house.job(), Pairs()

    def move(c: Connection, source: JobState, to: JobState) -> bool:
        try:
            return move_job(c, job, to, source=source)
        except IllegalMove:
            refused.add((source, to))
            return False

    assert moved(house.database, jobs, JobState, move) == allowed(JOB_MOVES)
    assert refused == set(product(JobState, repeat=2)) - allowed(JOB_MOVES)


def test_of_many_jobs_those_move_that_are_in_the_state_named(house: House) -> None:
    """One job is in each state: of all, the one that the move is for."""
    of = {house.job(): state for state in JobState}

    def try_all(c: Connection) -> tuple[Pairs, Pairs]:
        found, refused = Pairs(), Pairs()
        for source, to in product(JobState, repeat=2):
            for job, state in of.items():
                c.execute(update(jobs).where(jobs.c.id == job).values(state=state))
            before = dict(of)
            try:
                move = moving_job(jobs.c.id.in_(of), to, source=source).returning(jobs.c.id)
                went = c.execute(move).scalars().all()
            except IllegalMove:
                refused.add((source, to))
            else:
                assert [of[job] for job in went] == [source]
                found.add((source, to))
                before.update(dict.fromkeys(went, to))
            assert {row.id: row.state for row in c.execute(select(jobs.c.id, jobs.c.state))} == before
        return found, refused

    found, refused = house.database.write(try_all)
    assert found == allowed(JOB_MOVES)
    assert refused == set(product(JobState, repeat=2)) - found


def test_a_step_moves_only_as_the_table_allows_and_no_run_opens_what_has_ended(house: House) -> None:
    asked = intent(house, house.claim(house.job()))
    open_(house, asked)
    found = moved(house.database, steps, StepState, lambda c, _, to: move_step(c, asked.step, to))
    assert found == allowed(STEP_MOVES) - REOPENED


def test_an_attempt_moves_only_as_the_table_allows(house: House) -> None:
    asked = intent(house, house.claim(house.job()))
    open_(house, asked)
    found = moved(house.database, attempts, AttemptState, lambda c, _, to: move_attempt(c, asked.attempt, to))
    assert found == allowed(ATTEMPT_MOVES)
