"""Why a connect session ends without a consent, in words for the person who tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

AGAIN = "ask for a new link and try again"
OPERATOR = "tell whoever runs this installation"


@dataclass(frozen=True, kw_only=True)
class ConnectRefused:
    """Nothing was stored: why, and what to do."""

    reason: str
    next_step: str


class Refusal(Exception):
    """Leaves a callback early; `Connect.finish` turns it into its `refused`. *final*: the session was used up."""

    def __init__(self, refused: ConnectRefused, *, final: bool) -> None:
        super().__init__(refused.reason)
        self.refused = refused
        self.final = final


def refuse(reason: str, next_step: str = AGAIN, *, final: bool = False) -> NoReturn:
    """End the callback here."""
    raise Refusal(ConnectRefused(reason=reason, next_step=next_step), final=final)
