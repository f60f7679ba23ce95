"""Refuses a command such as migrate or restore while any process of the installation is running."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deploy import supervisor
from deploy.settings import Settings

if TYPE_CHECKING:
    from identity.sql.store import Store


def refuse_beside_others(
    settings: Settings,
    store: Callable[[], Store],
    *,
    because: str,
    tell: Callable[[str], None],
    otherwise: str | None = None,
    by_up: bool = False,
) -> None:
    """Return if nothing is seen running. Raise Unavailable for an `aswhom up`, and for processes on the ledger.

    *store* opens the ledger, once no `aswhom up` was found. *because* says what the command is about to do;
    *otherwise*, if given, says how to do it anyway. *by_up* means that we hold the data directory's lock ourselves.
    """
    from pipeline.ledger.running_processes import refusal, refuse_beside_processes

    if not by_up and supervisor.is_up(settings.data_dir):
        raise refusal(because, f"an `aswhom up` runs on {settings.data_dir}", otherwise)
    refuse_beside_processes(store(), because=because, tell=tell, otherwise=otherwise)
