"""The collaborators that every part of a refresh shares, assembled once per process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from identity.crash_points import none_reached
from identity.keys.vault import Vault
from identity.model import AccountKey
from identity.providers.profile import Profile
from identity.sql.store import Store
from identity.token_endpoint.budget import RefreshBudget
from identity.token_endpoint.endpoint import TokenEndpoint


@dataclass(frozen=True, kw_only=True)
class RefreshParts:
    """Collaborators shared by all threads.

    *restored* runs in the transaction in which a late answer reactivates an account that was given up: it wakes the
    jobs that wait for a person there. It takes no locks and touches only its connection.
    """

    store: Store
    vault: Vault
    endpoint: TokenEndpoint
    profiles: Mapping[str, Profile]
    clock: Callable[[], datetime]
    ids: Callable[[], str]
    restored: Callable[[Connection, AccountKey], None]
    budget: RefreshBudget = field(default_factory=RefreshBudget)
    reached: Callable[[str], None] = none_reached
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
