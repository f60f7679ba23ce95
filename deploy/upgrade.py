"""Migration of the ledger to this version's tables, while no process of ours uses it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from deploy.rehearsal import refuse_unfit
from deploy.running_check import refuse_beside_others
from deploy.settings import Settings

if TYPE_CHECKING:
    from pipeline.migrations import Begins

Say = Callable[[str], None]


def migrate(
    settings: Settings,
    *,
    say: Say = lambda line: None,
    begins: Begins | None = None,
    beside_others: bool = False,
    by_up: bool = False,
) -> None:
    """Migrate the ledger to this version's tables; a no-op if they are current.

    Raise Misconfigured, also for faults that would keep every process from starting. Raise Unavailable if processes run
    on tables that would change, unless *beside_others*. *by_up* means that we hold the data directory's lock ourselves.
    """
    from pipeline.db.database import open_database
    from pipeline.ledger.revision import misfit, revision_of
    from pipeline.migrations import upgrade_at

    refuse_unfit(settings)
    if not beside_others:
        with closing(open_database(settings.database())) as database:
            found = revision_of(database)
            if found is not None and misfit(found):  # older, since newer tables were refused above
                refuse_beside_others(
                    settings,
                    lambda: database,
                    because="the ledger's tables are to change",
                    otherwise="`--while-others-run` changes them all the same",
                    tell=say,
                    by_up=by_up,
                )
    upgrade_at(settings.database(), **({} if begins is None else {"begins": begins}))
