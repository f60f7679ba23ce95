"""Whether anything of the installation runs, for a command under which nothing may. All of them look here."""

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
    """Return once nothing is seen to run. Raises Unavailable for an `aswhom up`, and for processes on the ledger.

    *store* opens the ledger, after the first was looked for. *because* says what is to be done, and *otherwise*, if
    any, how it is done all the same. *by_up*: the lock of the data directory is our own.
    """
    from pipeline.ledger.running_processes import refusal, refuse_beside_processes

    if not by_up and supervisor.is_up(settings.data_dir):
        raise refusal(because, f"an `aswhom up` runs on {settings.data_dir}", otherwise)
    refuse_beside_processes(store(), because=because, tell=tell, otherwise=otherwise)
