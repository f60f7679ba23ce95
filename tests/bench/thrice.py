"""A job that waits as real ones do: three calls, one after the other, of an upstream that takes its time."""

from __future__ import annotations

from typing import Any

from pipeline.action import Call, Request
from pipeline.workflow import SERVICE, USER, ExternalUser, Trigger, workflow
from tests.bench.upstream import SLOWLY
from tests.ledger.house import Opened, Say

CALLS = 3


class SaySlowly(Say):
    """The same, where an answer takes 200 ms."""

    def request(self, call: Call) -> Request:
        return Request(method="POST", path=SLOWLY, json={"text": self.text})


@workflow(
    agent="tester",
    event=Opened,
    on=Trigger(source="github", event="three_calls", read=Opened.model_validate),
    user=lambda event: ExternalUser(provider="github", id=event.author, login="ada"),
    triggered_by=lambda event: f"github:{event.author}",
    uses={SaySlowly: USER | SERVICE},
)
def say_thrice(run: Any, event: Opened) -> None:
    for number in range(CALLS):
        run.do(SaySlowly(text=f"{event.text} {number}"), as_=run.user)
