"""What would keep every process of this version from starting, found while the ledger has its tables as they were.

There is no way back from newer tables but the backup: so a key's mode or a missing package is told before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from functools import partial

from sqlalchemy import Connection, inspect, select

from deploy.checkup.addresses import refused, stored
from deploy.checkup.egress import hosts_left_out
from deploy.environment import celerys_or_refuse
from deploy.installation import Installation
from deploy.ledger_keys import is_unmade, prove_keys
from deploy.process import workflows
from deploy.settings import Settings
from deploy.supervisor import is_up
from identity.capability.tables import audiences
from identity.errors import Misconfigured


def unfit(settings: Settings) -> list[str]:
    """Each fault as a sentence. Nothing is changed, and what runs is not disturbed."""
    from pipeline.db.database import open_database
    from pipeline.ledger.revision import of_a_newer_version, revision_of

    faults: list[str] = []
    if not is_unmade(settings):
        with closing(open_database(settings.database())) as database:
            if newer := of_a_newer_version(revision_of(database)):
                return [newer]
            faults += database.read(_untransferable)
    faults += _told(settings.runtime) + _told(partial(workflows, settings))
    if not is_unmade(settings) and not _told(settings.key_files().read):
        faults += _told(partial(prove_keys, settings))
    return faults


def in_the_way(at: Installation) -> list[str]:
    """What is unfit, also for Celery alone, and the addresses that this version sends nothing to.

    For a look before the upgrade.
    """
    from pipeline.ledger.revision import of_a_newer_version, revision_of

    faults, found = unfit(at.settings), revision_of(at.unchecked_ledger)
    if of_a_newer_version(found):
        return faults
    if found is None and not at.settings.key_files().missing():
        faults.append(
            f"the keys are there, and {at.place} has no tables of a ledger. Where one was restored, it is elsewhere: "
            "correct ASWHOM_DATABASE_URL. Only where there never was one, go on"
        )
    in_ledger = at.unchecked_ledger.read(stored)
    if not is_up(at.settings.data_dir):  # which takes it away for its own
        alone = "a worker, revocations or beat that is not started by `aswhom up` does not start where this is set"
        faults += [f"{alone}: {fault}" for fault in _told(celerys_or_refuse)]
    return faults + refused(at.settings, in_ledger) + hosts_left_out(at.settings, in_ledger)


def refuse_unfit(settings: Settings) -> None:
    """Raise Misconfigured with every fault, if there is one."""
    faults = unfit(settings)
    if len(faults) == 1:
        raise Misconfigured(faults[0])
    if faults:
        listed = "".join(f"\n  - {fault}" for fault in faults)
        raise Misconfigured(f"no process of this version would start, and nothing was changed:{listed}")


def _untransferable(connection: Connection) -> list[str]:
    """The rows that a migration does not take, whatever version the tables are of."""
    ledger, table = inspect(connection), audiences
    if not ledger.has_table(table.name) or "removed_at" not in {c["name"] for c in ledger.get_columns(table.name)}:
        return []
    live = select(table.c.uri, table.c.id).where(table.c.removed_at.is_(None)).order_by(table.c.id)
    of_one = defaultdict[str, list[str]](list)
    for uri, id in connection.execute(live):
        of_one[uri].append(id)
    return [
        f"the audiences {', '.join(ids)} have one address, {uri}: `aswhom capability audiences remove` all but one, by "
        "the version that runs now"
        for uri, ids in of_one.items()
        if len(ids) > 1
    ]


def _told(look: Callable[[], object]) -> list[str]:
    try:
        look()
    except Misconfigured as fault:
        return [str(fault)]
    return []
