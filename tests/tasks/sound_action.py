"""An action that nothing is wrong with, for those that something is."""

from __future__ import annotations

from typing import ClassVar

from identity.model import Effect
from pipeline.action import Action, Call, Facts, Recovery, Request, Response, Result


class Made(Result):
    id: str


class Make(Action[Made]):
    """It posts nothing, once."""

    facts: ClassVar[Facts] = Facts(
        provider="example", scopes=frozenset(), effect=Effect.WRITE, attribution=False, recovery=Recovery.ASK
    )

    def request(self, call: Call) -> Request:
        return Request(method="POST", path="/")

    def read(self, response: Response) -> Made:
        return Made(id="1")
