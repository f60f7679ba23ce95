"""A workflow of the tests whose step, where a revocation cancels its job, is followed by another as the service."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.authoring.declared_workflow import Workflow
from pipeline.db.database import Database
from pipeline.workflow import USER, compensate, workflow
from tests.ledger.house import House, Opened, Say, say_it


@workflow(
    agent="tester",
    event=Opened,
    on=say_it.on,
    user=say_it.user,
    triggered_by=say_it.triggered_by,
    uses={Say: USER.on_revoke(compensate(Say, lambda say, said: Say(text=f"{say.text} was undone")))},
)
def _say(run: Any, event: Opened) -> None:
    run.do(Say(text=event.text), as_=run.user)


say_and_undo: Workflow = replace(_say, name=say_it.name)


def house_that_undoes(database: Database) -> House:
    """The house, whose workflow is that."""
    house = House(database)
    house.workflow = say_and_undo
    house.build()
    return house
