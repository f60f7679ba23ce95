"""Pre-upgrade check: faults that would keep this version's processes from starting, found before any table changes.

Only a backup leads back from newer tables, so problems such as a key file's mode or a missing package are reported
first.
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
    """Return each fault as a sentence, without changing anything or disturbing running processes."""
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
    """Return all that would block an upgrade: `unfit`, faults only Celery has, and hosts this version refuses."""
    from pipeline.ledger.revision import of_a_newer_version, revision_of

    faults, found = unfit(at.settings), revision_of(at.unchecked_ledger)
    if of_a_newer_version(found):
        return faults
    if found is None and not at.settings.key_files().missing():
        faults.append(
            f"there are keys, but no tables of a ledger at {at.place}. If one was restored, it is elsewhere: correct "
            "ASWHOM_DATABASE_URL. Go on only if there never was one"
        )
    in_ledger = at.unchecked_ledger.read(stored)
    if not is_up(at.settings.data_dir):  # `up` removes these variables for its own processes
        alone = "a worker, revocations or beat that is not started by `aswhom up` does not start where this is set"
        faults += [f"{alone}: {fault}" for fault in _told(celerys_or_refuse)]
    return faults + refused(at.settings, in_ledger) + hosts_left_out(at.settings, in_ledger)


def refuse_unfit(settings: Settings) -> None:
    """Raise Misconfigured with all faults, if there are any."""
    faults = unfit(settings)
    if len(faults) == 1:
        raise Misconfigured(faults[0])
    if faults:
        listed = "".join(f"\n  - {fault}" for fault in faults)
        raise Misconfigured(f"no process of this version would start, and nothing was changed:{listed}")


def _untransferable(connection: Connection) -> list[str]:
    """Return the rows that a migration cannot take, at whatever version the tables are."""
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
