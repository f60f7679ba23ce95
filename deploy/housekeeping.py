"""`python -m deploy.housekeeping`: dispatches, reclaims, wakes, settles and seals until it is told to stop."""

from __future__ import annotations

import sys

from deploy import process
from identity.errors import Misconfigured
from pipeline.housekeeping import Housekeeping


def main() -> int:
    settings = process.settings_or_exit()
    process.set_up("housekeeping", settings)
    try:
        runtime = process.open_runtime(settings)
    except Misconfigured as fault:
        sys.stderr.write(f"aswhom: {fault}\n")
        return process.EX_CONFIG
    try:
        stopped = Housekeeping(runtime.duties(), runtime.beat).run()
    finally:
        runtime.close()
    return 0 if stopped else 1


if __name__ == "__main__":
    sys.exit(main())
