"""What would keep every process of this version from starting, found while the ledger has its tables as they were.

There is no way back from newer tables but the backup: so a key's mode or a missing package is told before.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial

from deploy.checkup.addresses import refused, stored
from deploy.installation import Installation
from deploy.ledger_keys import prove_keys
from deploy.process import workflows
from deploy.settings import Settings
from identity.errors import Misconfigured


def unfit(settings: Settings) -> list[str]:
    """Each fault as a sentence. Nothing is changed, and what runs is not disturbed."""
    from pipeline.database import open_database
    from pipeline.ledger.revision import of_a_newer_version, revision_of

    with closing(open_database(settings.database())) as database:
        found = revision_of(database)
    if newer := of_a_newer_version(found):
        return [newer]
    faults = _told(settings.runtime) + _told(partial(workflows, settings))
    if not _told(settings.key_files().read):
        faults += _told(partial(prove_keys, settings))
    return faults


def in_the_way(at: Installation) -> list[str]:
    """What is unfit, and the addresses that this version sends nothing to: for a look before the upgrade."""
    from pipeline.ledger.revision import of_a_newer_version, revision_of

    faults = unfit(at.settings)
    if of_a_newer_version(revision_of(at.unchecked_ledger)):
        return faults
    return faults + refused(at.settings, at.unchecked_ledger.read(stored))


def refuse_unfit(settings: Settings) -> None:
    """Raise Misconfigured with every fault, if there is one."""
    faults = unfit(settings)
    if len(faults) == 1:
        raise Misconfigured(faults[0])
    if faults:
        listed = "".join(f"\n  - {fault}" for fault in faults)
        raise Misconfigured(f"no process of this version would start, and nothing was changed:{listed}")


def _told(look: Callable[[], object]) -> list[str]:
    try:
        look()
    except Misconfigured as fault:
        return [str(fault)]
    return []
