"""The settings of an installation, read from the environment.

Every variable begins with `ASWHOM_`. `load()` tells of every fault at once; a variable that no setting has is a fault
too, because it is a typing error more often than not. What is not set has the default of the type that uses it.
"""

from __future__ import annotations

import os
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from deploy import valkey
from deploy.celerys import TOO_LATE
from deploy.console import console_faults
from deploy.environment import libpq
from deploy.forms import (
    AllowHosts,
    Authorities,
    BrokerUrl,
    DatabaseUrl,
    Days,
    EgressHosts,
    Issuer,
    Listen,
    Names,
    Operator,
    Origin,
    Place,
    Port,
    Proxies,
    RedisUrl,
    Seconds,
    SecretText,
    as_text,
)
from deploy.keys import KeyFiles
from deploy.ledger_tls import ledger_faults
from deploy.metrics_ports import port_faults
from deploy.reach import reach_faults
from deploy.secret_files import in_file, twice_given
from deploy.setting_faults import refuse, told, unknown
from identity.secret import Secret

if TYPE_CHECKING:
    from identity.addresses import AddressPolicy
    from pipeline.celery import BrokerSettings
    from pipeline.database import DatabaseSettings
    from pipeline.retention import Retention
    from pipeline.runtime_settings import RuntimeSettings
    from pipeline.services import StepSettings
    from pipeline.watchdog import Limits
    from webhooks.settings import WebSettings

PREFIX = "ASWHOM_"
_BEYOND_A_CALL = timedelta(seconds=10)  # the commits around it
_LOCAL = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - what everywhere is called from here


def _origin_of(given: dict[str, Any]) -> str:
    host, _, port = given["listen"].rpartition(":")
    return f"http://{_LOCAL.get(host, host)}:{port}"


class Settings(BaseSettings):
    """One installation. Make it with `load()`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, validate_default=True
    )

    data_dir: Place = Path(".aswhom")
    database_url_file: Place | None = None  # in which the next one is, as with the others of this form
    database_url: DatabaseUrl | None = Field(default_factory=in_file("database_url"))  # None: SQLite in data_dir
    broker_url_file: Place | None = None
    broker_url: BrokerUrl | None = Field(default_factory=in_file("broker_url"))  # None: `aswhom up`'s private Valkey
    redis_url_file: Place | None = None  # of the refresh locks; None: the broker, where that is a Redis or Valkey
    redis_url: RedisUrl | None = Field(default_factory=in_file("redis_url"))
    key_prefix: str = "aswhom:"
    vault_key_file: Place | None = None  # None: keys/vault in the data directory, and so on
    vault_keys: SecretStr | None = None  # the keys themselves, in place of that file
    signing_key_file: Place | None = None

    listen: Listen = "127.0.0.1:8080"
    base_url: Origin = Field(default_factory=_origin_of)  # how others reach it; where it listens, unless this is set
    trusted_proxies: Proxies = "0"  # how many, or whose networks: what they say of where a request came from counts
    allow_http: bool = False  # that others reach it without TLS
    web_processes: Annotated[int, Field(ge=1)] | None = None  # None: 1 on SQLite, 2 on PostgreSQL
    max_body: Annotated[int, Field(gt=0)] | None = None
    connect_lifetime: Seconds | None = None
    api_rate: Annotated[int, Field(ge=1)] | None = None
    webhook_rate: Annotated[int, Field(ge=1)] | None = None
    webhook_tenant_rate: Annotated[int, Field(ge=1)] | None = None

    console: bool | None = None  # None: wherever it is safe
    console_issuer: Issuer | None = None  # of the OpenID provider that people sign in at; None: links alone
    console_client_id: str | None = None
    console_client_secret_file: Place | None = None
    console_client_secret: SecretText | None = Field(default_factory=in_file("console_client_secret"))
    console_scopes: Annotated[Names, NoDecode] = ("openid", "email", "profile")
    console_roles_claim: str | None = None
    console_session: Seconds = timedelta(hours=8)
    console_idle: Seconds = timedelta(hours=1)  # that a session lasts without a request of its person's; 0: no limit
    console_label: Annotated[str, Field(max_length=40)] | None = None  # which installation it is; None: its host

    workflows: Annotated[
        Names, NoDecode
    ] = ()  # modules; none: whatever is installed and names itself as `aswhom.workflows`
    workflows_dir: Place = Path()  # where such modules are looked for besides what is installed
    allow_hosts: Annotated[AllowHosts, NoDecode] = ()  # that may be private, and plain HTTP where they say so
    egress_hosts: Annotated[EgressHosts, NoDecode] = ()  # that may be reached besides; none: whatever is public
    ca_file: Authorities | None = None  # authorities that are trusted besides the public ones

    operator: Operator | None = None  # who gives commands, as they claim it; None: as the machine knows them

    log_format: Literal["json", "console"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    metrics_host: str = "127.0.0.1"
    web_metrics_port: Port = 0  # 0: the web answers on its own
    worker_metrics_port: Port = 9101  # of the first; the second worker of a machine has the next; 0: none
    revocations_metrics_port: Port = 9111
    housekeeping_metrics_port: Port = 9112
    beat_metrics_port: Port = 9113

    send_within: Seconds | None = None
    call_deadline: Seconds | None = None
    step_attempts: Annotated[int, Field(ge=1)] | None = None
    step_backoff: Seconds | None = None
    step_backoff_cap: Seconds | None = None
    yield_after: Seconds | None = None
    consent_wait: Seconds | None = None
    worker_hold: Seconds | None = None
    job_runs: Annotated[int, Field(ge=1, le=1000)] | None = None
    job_backoff: Seconds | None = None
    misconfigured_delay: Seconds | None = None
    workers: Annotated[int, Field(ge=1, le=10)] = 2  # of thirty-two threads each (docs/decisions/0004)
    task_limit: Seconds | None = None
    task_grace: Seconds | None = None
    beat_interval: Seconds | None = None
    turn_timeout: Seconds | None = None
    worker_writes: Annotated[int, Field(ge=1)] = 8  # on PostgreSQL
    window: Annotated[int, Field(ge=1)] | None = None
    keep_bodies: Days | None = None
    keep_steps: Days | None = None
    keep_intents: Days | None = None
    keep_sessions: Days | None = None
    keep_idempotency_keys: Days | None = None
    keep_api_keys: Days | None = None
    keep_slots: Days | None = None
    keep_audit: Days | None = None

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

    def database(self) -> DatabaseSettings:
        """How the ledger is opened."""
        from pipeline.database import DatabaseSettings

        return DatabaseSettings(url=self.ledger_url(), **_given(turn_timeout=self.turn_timeout))

    def broker(self) -> BrokerSettings:
        """How the broker is reached."""
        from pipeline.celery import BrokerSettings

        if self.broker_url is None:
            url = valkey.broker_url(valkey.socket_path(self.data_dir))
        else:
            url = self.broker_url.get_secret_value()
        return BrokerSettings(
            url=url,
            key_prefix=self.key_prefix,
            **_given(beat_interval=self.beat_interval),
        )

    def runtime(self) -> RuntimeSettings:
        """What a process that runs work is opened with. Raises Misconfigured, for settings that contradict too."""
        from deploy.contradictions import contradictions
        from pipeline.runtime_settings import RuntimeSettings
        from pipeline.worker import WorkerSettings

        redis_url = self.redis()
        given_jobs = _given(
            hold=self.worker_hold,
            runs=self.job_runs,
            backoff=self.job_backoff,
            misconfigured_delay=self.misconfigured_delay,
        )
        steps, jobs = self.steps(), WorkerSettings(**given_jobs)
        refuse(list(contradictions(steps, jobs, self.limits())))
        return RuntimeSettings(
            database=self.database(),
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
        from identity.addresses import AddressPolicy

        return AddressPolicy(allow_hosts=frozenset(self.allow_hosts), egress_hosts=frozenset(self.egress_hosts))

    def steps(self) -> StepSettings:
        """How calls are made, and made again."""
        from pipeline.services import StepSettings

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
        """What the ledger forgets, and when."""
        from pipeline.retention import Retention

        return Retention(**_given(**{kept.name: getattr(self, f"keep_{kept.name}") for kept in fields(Retention)}))

    def limits(self) -> Limits:
        """How long a task may take before its process leaves, and then the calls of the others."""
        from pipeline.watchdog import HANDS_BACK, Limits

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
        given = {name: getattr(self, name) for name in self.model_fields_set}
        paths = {"data_dir": self.data_dir, "workflows_dir": self.workflows_dir}
        keys = self.key_files()
        paths |= {"vault_key_file": keys.vault, "signing_key_file": keys.signing}
        own = {PREFIX + name.upper(): as_text(value) for name, value in {**given, **paths}.items() if value is not None}
        inherited = {name: value for name, value in os.environ.items() if name not in TOO_LATE}
        return {**inherited, **own, **more}


def load(**given: object) -> Settings:
    """The settings: what is *given*, then the environment, then the defaults. Raises Misconfigured, with every fault.

    What is given as None counts as not given.
    """
    faults = unknown(os.environ, known=Settings.model_fields, prefix=PREFIX)
    settings: Settings | None = None
    try:
        settings = Settings(**_given(**given))
    except ValidationError as error:
        faults += told(error, prefix=PREFIX)
    if settings is not None:
        faults += twice_given(settings.model_fields_set)
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
