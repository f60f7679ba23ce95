"""A job that waits as real ones do: three calls, one after the other, of an upstream that takes its time."""

from __future__ import annotations

from typing import Any

from pipeline.workflow import SERVICE, USER, ExternalUser, Trigger, workflow
from tests.ledger.house import Opened, Say

CALLS = 3


@workflow(
    agent="tester",
    event=Opened,
    on=Trigger(source="github", event="three_calls", read=Opened.model_validate),
    user=lambda event: ExternalUser(provider="github", id=event.author, login="ada"),
    triggered_by=lambda event: f"github:{event.author}",
    uses={Say: USER | SERVICE},
)
def say_thrice(run: Any, event: Opened) -> None:
    for number in range(CALLS):
        run.do(Say(text=f"{event.text} {number}"), as_=run.user)
