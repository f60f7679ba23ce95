"""The diagrams of docs/reference/states.md, and that of accounts, are the tables of moves."""

from __future__ import annotations

import re
from typing import Any

import pytest

from identity.accounts import states as accounts
from identity.refresh import intents
from identity.sql.state_machine import Moves
from identity.withdrawals import withdrawal as withdrawals
from pipeline import states
from tests.docs.pages import blocks, named, page, rows, section
from webhooks.connect import PAGES

TABLES: dict[str, Moves[Any]] = {
    "Jobs": states.JOB_MOVES,
    "Steps": states.STEP_MOVES,
    "Attempts": states.ATTEMPT_MOVES,
    "Approvals": states.APPROVAL_MOVES,
    "Accounts": accounts.MOVES,
    "Refresh intents": intents.MOVES,
    "Withdrawals": withdrawals.MOVES,
}


def _told(heading: str) -> str:
    """Where the states of *heading* are told: those of accounts on a page of their own."""
    if heading == "Accounts":
        return section(page("reference/accounts.md"), "States")
    return section(page("reference/states.md"), heading)


def _drawn(heading: str) -> set[tuple[str, str]]:
    (diagram,) = blocks(_told(heading), "mermaid")
    lines = diagram.splitlines()
    assert lines[0] == "stateDiagram-v2"
    arrows = [re.fullmatch(r" +(\S+) --> (\S+?)(?: ?: .+)?", line) for line in lines[1:]]
    assert all(arrows), [line for line, arrow in zip(lines[1:], arrows, strict=True) if not arrow]
    pairs = [(arrow[1], arrow[2]) for arrow in arrows if arrow]
    assert len(pairs) == len(set(pairs)), "an arrow is drawn twice"
    return set(pairs)


@pytest.mark.parametrize("heading", TABLES)
def test_a_diagram_draws_the_allowed_moves_and_no_other(heading: str) -> None:
    moves = TABLES[heading].allowed
    allowed = {(str(source), str(target)) for source, targets in moves.items() for target in targets}
    assert {pair for pair in _drawn(heading) if "[*]" not in pair} == allowed


@pytest.mark.parametrize("heading", TABLES)
def test_a_diagram_ends_where_no_move_leads_on(heading: str) -> None:
    ends = {source for source, target in _drawn(heading) if target == "[*]"}
    assert ends == {str(state) for state in TABLES[heading].terminal}
    assert any(source == "[*]" for source, _ in _drawn(heading))


@pytest.mark.parametrize("heading", TABLES)
def test_every_state_is_explained_once(heading: str) -> None:
    explained = named(_told(heading))
    assert sorted(explained) == sorted(str(state) for state in TABLES[heading].allowed)


def test_every_end_of_a_connect_is_listed_with_its_status() -> None:
    listed = rows(section(page("reference/accounts.md"), "How a connect ends"))
    ends = {row[0].strip("`"): int(row[-1]) for row in listed}
    assert ends == {"connected": 200} | {str(why): status for why, (_, status) in PAGES.items()}


def test_every_reason_to_wait_is_explained() -> None:
    assert named(section(page("reference/states.md"), "Why a job waits")) == [str(wait) for wait in states.Wait]
