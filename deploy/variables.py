"""What can be said of an installation: every variable, its form and its default.

The environment has it as `ASWHOM_` and its name. `deploy.settings` makes of it what each part is told.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from deploy.secret_files import in_file
from deploy.setting_formats import (
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
)

PREFIX = "ASWHOM_"
_LOCAL = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - what everywhere is called from here


def _origin_of(given: dict[str, Any]) -> str:
    host, _, port = given["listen"].rpartition(":")
    return f"http://{_LOCAL.get(host, host)}:{port}"


class Variables(BaseSettings):
    """Each as it is said, or its default; None where the type that uses it has one."""

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
    database_connections: Annotated[int, Field(ge=4)] | None = None  # on PostgreSQL; None: by what a process does
    worker_writes: Annotated[int, Field(ge=1)] = 8  # on PostgreSQL
    window: Annotated[int, Field(ge=1)] | None = None
    keep_bodies: Days | None = None
    keep_steps: Days | None = None
    keep_intents: Days | None = None
    keep_sessions: Days | None = None
    keep_idempotency_keys: Days | None = None
    keep_api_keys: Days | None = None
    keep_slots: Days | None = None
    keep_jobs: Days | None = None
    keep_deliveries: Days | None = None
    keep_audit: Days | None = None
