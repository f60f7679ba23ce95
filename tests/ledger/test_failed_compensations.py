"""A compensation whose own job ends without it: the next receipt says so, and why, and nothing is open any more."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from pipeline import revocation
from pipeline.database import Database
from pipeline.ledger import jobs
from pipeline.revocation.revoker import Revoker
from pipeline.workflow import Registry
from tests.ledger.acts import SIGNER, done, open_, receipt_of, revoke
from tests.ledger.house import account_scope, intent_of
from tests.ledger.undoing import house_that_undoes


@pytest.mark.parametrize("ends", [jobs.bury, jobs.cancel], ids=["dead", "cancelled"])
def test_a_compensation_that_failed_is_on_the_next_receipt_with_its_reason(database: Database, ends: Any) -> None:
    house = house_that_undoes(database)
    stopped = house.claim(house.job())
    asked = intent_of(house, stopped)
    open_(house, asked)
    done(house, asked)
    made = revoke(house, account_scope())
    open_(house, intent_of(house, stopped, position=2))
    revoker = Revoker(database, SIGNER, Registry([house.workflow]))
    assert revoker.advance(made)
    first = receipt_of(house, made)
    (pending,) = first["compensations"]
    assert (pending["outcome"], first["revision"]) == ("pending", 1)
    house.database.write(partial(ends, job=house.claim(pending["by_job"]), reason="the workspace is gone"))
    assert revoker.advance(made)
    second = receipt_of(house, made)
    failed = {**pending, "outcome": "failed", "reason": "the workspace is gone"}
    assert (second["compensations"], second["revision"]) == ([failed], 2)
    row = database.read(partial(revocation.load, revocation=made))
    assert row.open_ends == 0
    assert revoker.advance(made)
    assert database.read(partial(revocation.load, revocation=made)) == row
