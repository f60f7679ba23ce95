"""Settings of an installation: turns its variables into the configuration of each part.

`load()` reports every fault at once. An ASWHOM_ variable that matches no setting is a fault, because it is usually a
typing error. A setting that is not given takes the default of the type that uses it.
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
    from pipeline.broker.watchdog import TaskLimits
    from pipeline.db.database import DatabaseSettings
    from pipeline.duties.retention import Retention
    from pipeline.execution.services import StepSettings
    from pipeline.execution.worker import WorkerSettings
    from pipeline.runtime_settings import RuntimeSettings
    from webhooks.settings import WebSettings

_BEYOND_A_CALL = timedelta(seconds=10)  # for the commits before and after a call


class Settings(Variables):
    """One installation's settings, and the configuration of its parts. Create it with `load()`."""

    @property
    def said(self) -> set[str]:
        """Return the names of the settings that were given."""
        return {name for name in self.model_fields_set if getattr(self, name) is not None}

    @property
    def embedded(self) -> bool:
        """True if the broker is the private Valkey of `aswhom up`."""
        return self.broker_url is None

    def ledger_url(self) -> str:
        """Return the ledger's database URL for SQLAlchemy. It may contain a password."""
        if self.database_url is None:
            return f"sqlite:///{self.data_dir / 'ledger.db'}"
        return self.database_url.get_secret_value()

    @property
    def on_sqlite(self) -> bool:
        return self.ledger_url().startswith("sqlite")

    def key_files(self) -> KeyFiles:
        """Return the locations of the installation's own secrets."""
        folder = self.data_dir / "keys"
        return KeyFiles(
            vault=self.vault_key_file or folder / "vault",
            signing=self.signing_key_file or folder / "signing",
            ring=Secret(self.vault_keys.get_secret_value()) if self.vault_keys is not None else None,
        )

    def metrics_port(self, process: str) -> int:
        """Return the metrics port of a process by its name, such as `worker-2`. 0 means none, or the web's own port."""
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
        """Return the database settings for a named process, or for a command if *process* is None."""
        from pipeline.db.database import DatabaseSettings

        connections = None if process is None else most_connections(self, process)
        given = _given(turn_timeout=self.turn_timeout, connections=connections)
        return DatabaseSettings(url=self.ledger_url(), own_statement_timeout=process is None, **given)

    def broker(self) -> BrokerSettings:
        """Return the broker settings."""
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
        """Return the runtime settings of a *process*, or of a command. Raise Misconfigured, also for contradictions."""
        from pipeline.runtime_settings import RuntimeSettings

        redis_url = self.redis()
        steps, jobs = self.steps(), self._jobs()
        refuse(self.contradictions())
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
        """Return the hosts that a command may connect to, the same as for processes."""
        from identity.http.addresses import AddressPolicy

        return AddressPolicy(allow_hosts=frozenset(self.allow_hosts), egress_hosts=frozenset(self.egress_hosts))

    def steps(self) -> StepSettings:
        """Return the timing and retry settings of calls."""
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

    def contradictions(self) -> list[str]:
        """Return each contradiction between settings as a sentence; with any, no process starts."""
        from deploy.contradictions import contradictions, contradictions_of_retention

        of_work = contradictions(self.steps(), self._jobs(), self.limits())
        return [*of_work, *contradictions_of_retention(self._kept())]

    def retention(self) -> Retention:
        """Return how long the ledger keeps what. Raise Misconfigured for contradictions between these settings."""
        from deploy.contradictions import contradictions_of_retention

        kept = self._kept()
        refuse(list(contradictions_of_retention(kept)))
        return kept

    def _kept(self) -> Retention:
        from pipeline.duties.retention import Retention

        return Retention(**_given(**{kept.name: getattr(self, f"keep_{kept.name}") for kept in fields(Retention)}))

    def _jobs(self) -> WorkerSettings:
        from pipeline.execution.worker import WorkerSettings

        return WorkerSettings(
            **_given(
                claim_for=self.worker_hold,
                runs=self.job_runs,
                backoff=self.job_backoff,
                misconfigured_delay=self.misconfigured_delay,
            )
        )

    def limits(self) -> TaskLimits:
        """Return how long a task may run before its process stops, and the grace for that process's other calls."""
        from pipeline.broker.watchdog import HANDS_BACK, TaskLimits

        steps = self.steps()
        call = steps.send_within + steps.call_deadline
        # A grace that is set may be shorter than the default, but never so short that it cuts off a call.
        grace = max(TaskLimits().grace, call + _BEYOND_A_CALL) if self.task_grace is None else self.task_grace
        return TaskLimits(**_given(task=self.task_limit, grace=max(grace, call + HANDS_BACK)))

    def web(self, metrics_dir: Path | None = None) -> WebSettings:
        """Return the settings of the web processes."""
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
        """Return the Redis or Valkey URL of the refresh locks for redis-py, or None. It may contain a password."""
        return self.broker_redis() if self.redis_url is None else self.redis_url.get_secret_value()

    def broker_redis(self) -> str | None:
        """Return the broker's URL for redis-py, or None if it is no Redis or Valkey, or is behind Sentinel."""
        if self.broker_url is None:
            return valkey.redis_url(valkey.socket_path(self.data_dir))
        url = self.broker_url.get_secret_value()
        if url.startswith("redis+socket://"):
            return "unix://" + url.removeprefix("redis+socket://").replace("virtual_host=", "db=")
        return url if urlsplit(url).scheme in ("redis", "rediss") else None

    def environment(self, **more: str) -> dict[str, str]:
        """Return an environment that gives a child process these same settings in another working directory."""
        given = {name: getattr(self, name) for name in self.said}
        paths = {"data_dir": self.data_dir, "workflows_dir": self.workflows_dir}
        keys = self.key_files()
        paths |= {"vault_key_file": keys.vault, "signing_key_file": keys.signing}
        own = {PREFIX + name.upper(): as_text(value) for name, value in {**given, **paths}.items() if value is not None}
        unsaid = {PREFIX + name.upper() for name in self.model_fields_set - self.said}
        return {**inherited(besides=unsaid), **own, **more}


def load(**given: object) -> Settings:
    """Return the settings: those *given*, then the environment's, then defaults. A given None counts as not given.

    Raise Misconfigured with every fault.
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
    assert settings is not None  # noqa: S101 - for the type checker: faults were refused above
    return settings


def _given(**values: object) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
