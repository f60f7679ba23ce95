"""`python -m deploy.housekeeping`: dispatches, reclaims, wakes, settles and seals until it is stopped."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from datetime import timedelta

from deploy import disk_space, process
from deploy.shared_redis import keeping_the_mark, tell_of_another
from identity.errors import Misconfigured
from pipeline.duties.housekeeping import PATIENCE, Housekeeping
from pipeline.upkeep import duties_of


def main() -> int:
    settings = process.settings_or_exit()
    begun = threading.Event()
    process.set_up("housekeeping", settings, is_ready=begun.is_set)
    disk_space.show(settings.data_dir)
    try:
        runtime = process.of_its_tables(process.open_runtime(settings, "housekeeping"))
    except Misconfigured as fault:
        sys.stderr.write(f"aswhom: {fault}\n")
        return process.EX_CONFIG
    tell_of_another(settings, runtime)
    process.spare_what_is_loaded()
    begun.set()
    duties = [*duties_of(runtime), keeping_the_mark(settings, runtime)]
    keep(Housekeeping(duties, runtime.heartbeat, stopping=runtime.stopping), runtime.close)
    return 0


def keep(housekeeping: Housekeeping, close: Callable[[], None], *, patience: timedelta = PATIENCE) -> None:
    """Run housekeeping until told to stop, then *close* what the duties use.

    If a duty has not ended in time, exit immediately with 1. Closing a socket or the ledger under a request in flight
    would lose its outcome, and exiting ends the threads that would begin another.
    """
    if not housekeeping.run(patience):
        logging.shutdown()
        os._exit(1)
    close()


if __name__ == "__main__":
    sys.exit(main())
