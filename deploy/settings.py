"""The settings of an installation: what its variables come to, for each part of it.

`load()` tells of every fault at once; a variable of ours that no setting has is a fault too, because it is a typing
error more often than not. What is not set has the default of the type that uses it.
"""

from __future__ import annotations

import os
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from deploy import valkey
from deploy.console import console_faults
from deploy.environment import inherited, libpq
from deploy.exposure import reach_faults
from deploy.keys import KeyFiles
from deploy.ledger_connections import most_connections
from deploy.ledger_tls import ledger_faults
from deploy.metrics_ports import port_faults
from deploy.secret_files import given_before, twice_given
from deploy.setting_faults import refuse, told, unknown
from deploy.setting_formats import as_text
from deploy.variables import PREFIX, Variables
from identity.secret import Secret

if TYPE_CHECKING:
    from identity.http.addresses import AddressPolicy
    from pipeline.broker.celery import BrokerSettings
    from pipeline.broker.watchdog import Limits
    from pipeline.db.database import DatabaseSettings
    from pipeline.duties.retention import Retention
    from pipeline.execution.services import StepSettings
    from pipeline.runtime_settings import RuntimeSettings
    from webhooks.settings import WebSettings

_BEYOND_A_CALL = timedelta(seconds=10)  # the commits around it


class Settings(Variables):
    """One installation, and what its parts are told of it. Make it with `load()`."""

    @property
    def said(self) -> set[str]:
        """The names of those that somebody set."""
        return {name for name in self.model_fields_set if getattr(self, name) is not None}

    @property
    def embedded(self) -> bool:
        """Whether the broker is the private Valkey of `aswhom up`."""
        return self.broker_url is None

    def ledger_url(self) -> str:
        """The ledger's database, for SQLAlchemy. It may hold a password."""
        if self.database_url is None:
            return f"sqlite:///{self.data_dir / 'ledger.db'}"
        return self.database_url.get_secret_value()

    @property
    def on_sqlite(self) -> bool:
        return self.ledger_url().startswith("sqlite")

    def key_files(self) -> KeyFiles:
        """Where the installation's own secrets are."""
        folder = self.data_dir / "keys"
        return KeyFiles(
            vault=self.vault_key_file or folder / "vault",
            signing=self.signing_key_file or folder / "signing",
            ring=Secret(self.vault_keys.get_secret_value()) if self.vault_keys is not None else None,
        )

    def metrics_port(self, process: str) -> int:
        """The port of a process by its name, `worker-2` say; 0: it serves no metrics, or where it listens anyway."""
        name, _, number = process.partition("-")
        ports = {
            "web": self.web_metrics_port,
            "worker": self.worker_metrics_port,
            "revocations": self.revocations_metrics_port,
            "housekeeping": self.housekeeping_metrics_port,
            "beat": self.beat_metrics_port,
        }
        first = ports.get(name, 0)
        return first + int(number) - 1 if first and number else first

    def database(self, process: str | None = None) -> DatabaseSettings:
        """How the ledger is opened, in one of the processes by its name or in a command."""
        from pipeline.db.database import DatabaseSettings

        connections = None if process is None else most_connections(self, process)
        given = _given(turn_timeout=self.turn_timeout, connections=connections)
        return DatabaseSettings(url=self.ledger_url(), **given)

    def broker(self) -> BrokerSettings:
        """How the broker is reached."""
        from pipeline.broker.celery import BrokerSettings

        if self.broker_url is None:
            url = valkey.broker_url(valkey.socket_path(self.data_dir))
        else:
            url = self.broker_url.get_secret_value()
        return BrokerSettings(
            url=url,
            key_prefix=self.key_prefix,
            **_given(beat_interval=self.beat_interval),
        )

    def runtime(self, process: str | None = None) -> RuntimeSettings:
        """What a *process*, or a command, is opened with. Raises Misconfigured, for settings that contradict too."""
        from deploy.contradictions import contradictions
        from pipeline.execution.worker import WorkerSettings
        from pipeline.runtime_settings import RuntimeSettings

        redis_url = self.redis()
        given_jobs = _given(
            claim_for=self.worker_hold,
            runs=self.job_runs,
            backoff=self.job_backoff,
            misconfigured_delay=self.misconfigured_delay,
        )
        steps, jobs = self.steps(), WorkerSettings(**given_jobs)
        refuse(list(contradictions(steps, jobs, self.limits())))
        return RuntimeSettings(
            database=self.database(process),
            keys=self.key_files().read(),
            base_url=self.base_url,
            redis_url=Secret(redis_url) if redis_url else None,
            key_prefix=self.key_prefix,
            allow_hosts=frozenset(self.allow_hosts),
            egress_hosts=frozenset(self.egress_hosts),
            ca_file=self.ca_file,
            steps=steps,
            jobs=jobs,
            retention=self.retention(),
            host=os.uname().nodename,
            **_given(window=self.window, connect_lifetime=self.connect_lifetime),
        )

    def addresses(self) -> AddressPolicy:
        """Which hosts a command may connect to, as processes may."""
        from identity.http.addresses import AddressPolicy

        return AddressPolicy(allow_hosts=frozenset(self.allow_hosts), egress_hosts=frozenset(self.egress_hosts))

    def steps(self) -> StepSettings:
        """How calls are made, and made again."""
        from pipeline.execution.services import StepSettings

        given = _given(
            send_within=self.send_within,
            call_deadline=self.call_deadline,
            attempts=self.step_attempts,
            backoff=self.step_backoff,
            backoff_cap=self.step_backoff_cap,
            yield_after=self.yield_after,
            consent_wait=self.consent_wait,
        )
        return StepSettings(**given)

    def retention(self) -> Retention:
        """What the ledger forgets, and when. Raises Misconfigured, for settings that contradict."""
        from deploy.contradictions import contradictions_of_retention
        from pipeline.duties.retention import Retention

        kept = Retention(**_given(**{kept.name: getattr(self, f"keep_{kept.name}") for kept in fields(Retention)}))
        refuse(list(contradictions_of_retention(kept)))
        return kept

    def limits(self) -> Limits:
        """How long a task may take before its process leaves, and then the calls of the others."""
        from pipeline.broker.watchdog import HANDS_BACK, Limits

        steps = self.steps()
        call = steps.send_within + steps.call_deadline
        # A grace that is given may be shorter, and never cuts a call: it has no other purpose.
        grace = max(Limits().grace, call + _BEYOND_A_CALL) if self.task_grace is None else self.task_grace
        return Limits(**_given(task=self.task_limit, grace=max(grace, call + HANDS_BACK)))

    def web(self, metrics_dir: Path | None = None) -> WebSettings:
        """What the web processes are told."""
        from webhooks.client_address import Proxies
        from webhooks.settings import WebSettings

        given = _given(
            max_body=self.max_body,
            connect_lifetime=self.connect_lifetime,
            api_rate=self.api_rate,
            webhook_rate=self.webhook_rate,
            webhook_tenant_rate=self.webhook_tenant_rate,
        )
        return WebSettings(
            base_url=self.base_url,
            proxies=Proxies.of(self.trusted_proxies),
            metrics_dir=metrics_dir,
            metrics_port=self.web_metrics_port,
            key_prefix=self.key_prefix,
            **given,
        )

    def redis(self) -> str | None:
        """The Redis or Valkey of the refresh locks, for redis-py; None: there is none. It may hold a password."""
        return self.broker_redis() if self.redis_url is None else self.redis_url.get_secret_value()

    def broker_redis(self) -> str | None:
        """The broker, for redis-py; None: it is neither Redis nor Valkey, or behind Sentinel."""
        if self.broker_url is None:
            return valkey.redis_url(valkey.socket_path(self.data_dir))
        url = self.broker_url.get_secret_value()
        if url.startswith("redis+socket://"):
            return "unix://" + url.removeprefix("redis+socket://").replace("virtual_host=", "db=")
        return url if urlsplit(url).scheme in ("redis", "rediss") else None

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a child that is to see these very settings from another directory."""
        given = {name: getattr(self, name) for name in self.said}
        paths = {"data_dir": self.data_dir, "workflows_dir": self.workflows_dir}
        keys = self.key_files()
        paths |= {"vault_key_file": keys.vault, "signing_key_file": keys.signing}
        own = {PREFIX + name.upper(): as_text(value) for name, value in {**given, **paths}.items() if value is not None}
        unsaid = {PREFIX + name.upper() for name in self.model_fields_set - self.said}
        return {**inherited(besides=unsaid), **own, **more}


def load(**given: object) -> Settings:
    """The settings: what is *given*, then the environment, then the defaults. Raises Misconfigured, with every fault.

    What is given as None counts as not given.
    """
    faults = unknown(inherited(), known=Settings.model_fields, prefix=PREFIX)
    settings: Settings | None = None
    try:
        settings = Settings(**given_before(_given(**given)))
    except ValidationError as error:
        faults += told(error, prefix=PREFIX)
    if settings is not None:
        faults += twice_given(settings.said)
        faults += [
            *ledger_faults(settings.ledger_url(), libpq()),
            *reach_faults(settings),
            *port_faults(settings),
            *console_faults(settings),
        ]
    refuse(faults)
    assert settings is not None  # noqa: S101 - for the type checker: its faults were refused
    return settings


def _given(**values: object) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
