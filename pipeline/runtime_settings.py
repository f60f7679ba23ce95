"""Settings to open a runtime with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from identity.secret import Secret
from identity.token_endpoint.budget import RefreshBudget
from pipeline.db.database import DatabaseSettings
from pipeline.duties.retention import Retention
from pipeline.execution.services import StepSettings
from pipeline.execution.worker import WorkerSettings
from pipeline.throttle.breaker_state import HostBreaker


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The installation's own secrets."""

    vault: Mapping[int, bytes] = field(repr=False)  # key-encryption keys by id
    signing: bytes = field(repr=False)  # seed of the key that signs receipts and the audit


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings:
    """Everything a runtime needs to be opened."""

    database: DatabaseSettings
    keys: Keys
    base_url: str
    redis_url: Secret | None = None  # None: refreshes are serialized by the intents only
    key_prefix: str = "aswhom:"
    allow_hosts: frozenset[str] = frozenset()  # hosts that may have private addresses: the sandbox
    # the only hosts that may be reached, apart from `allow_hosts`; empty: every public host
    egress_hosts: frozenset[str] = frozenset()
    ca_file: Path | None = None  # certificate authorities trusted in addition to the public ones
    steps: StepSettings = field(default_factory=StepSettings)
    jobs: WorkerSettings = field(default_factory=WorkerSettings)
    refresh: RefreshBudget = field(default_factory=RefreshBudget)
    breaker: HostBreaker | None = None  # None: its probes are waited for as long as `steps` lets a call take
    window: int = 128  # outstanding bells per queue
    connect_lifetime: timedelta = timedelta(minutes=10)  # to open a connect link, and then again to return with consent
    approval_lifetime: timedelta = timedelta(minutes=15)  # lifetime of a link for answering an approval
    retention: Retention = field(default_factory=Retention)
    host: str = "localhost"
