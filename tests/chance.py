"""What is left to chance: nothing in `make test`, so that what fails there is what was changed.

The slow tests look for what nobody has found, and a control for whatever finds that its guard is gone.
"""

from __future__ import annotations

import os
import secrets

IN_CONTROL = "TESTS_CONTROL" in os.environ


def seed_of(*, slow: bool) -> int:
    """Another each time where it may be; FAULTS_SEED repeats what a failure printed."""
    number = int(os.environ.get("FAULTS_SEED") or (secrets.randbelow(2**32) if slow or IN_CONTROL else 0))
    print(f"FAULTS_SEED={number}")
    return number
