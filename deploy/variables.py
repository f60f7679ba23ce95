"""Every setting of an installation, with its format and default.

Each is the environment variable ASWHOM_ plus its name. `deploy.settings` derives each part's configuration from them.
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
_LOCAL = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - wildcard addresses and how to reach them locally


def _origin_of(given: dict[str, Any]) -> str:
    host, _, port = given["listen"].rpartition(":")
    return f"http://{_LOCAL.get(host, host)}:{port}"


class Variables(BaseSettings):
    """Settings as given, or their defaults. None stands for the default of the type that uses the setting."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, validate_default=True
    )

    data_dir: Place = Path(".aswhom")
    database_url_file: Place | None = None  # a file that holds the next setting; the other *_file settings are alike
    database_url: DatabaseUrl | None = Field(default_factory=in_file("database_url"))  # None: SQLite in data_dir
    broker_url_file: Place | None = None
    broker_url: BrokerUrl | None = Field(default_factory=in_file("broker_url"))  # None: `aswhom up`'s private Valkey
    redis_url_file: Place | None = None  # for the refresh locks; None: the broker, if it is a Redis or Valkey
    redis_url: RedisUrl | None = Field(default_factory=in_file("redis_url"))
    key_prefix: str = "aswhom:"
    vault_key_file: Place | None = None  # None: keys/vault in the data directory; the other key file likewise
    vault_keys: SecretStr | None = None  # the keys themselves, instead of that file
    signing_key_file: Place | None = None

    listen: Listen = "127.0.0.1:8080"
    base_url: Origin = Field(default_factory=_origin_of)  # its public URL; default: the address it listens on
    trusted_proxies: Proxies = "0"  # trusted for client addresses: how many proxies, or their networks
    allow_http: bool = False  # allows access without TLS from other hosts
    web_processes: Annotated[int, Field(ge=1)] | None = None  # None: 1 on SQLite, 2 on PostgreSQL
    max_body: Annotated[int, Field(gt=0)] | None = None
    connect_lifetime: Seconds | None = None
    api_rate: Annotated[int, Field(ge=1)] | None = None
    webhook_rate: Annotated[int, Field(ge=1)] | None = None
    webhook_tenant_rate: Annotated[int, Field(ge=1)] | None = None

    console: bool | None = None  # None: on where it is safe
    console_issuer: Issuer | None = None  # the OpenID provider for sign-in; None: only sign-in links
    console_client_id: str | None = None
    console_client_secret_file: Place | None = None
    console_client_secret: SecretText | None = Field(default_factory=in_file("console_client_secret"))
    console_scopes: Annotated[Names, NoDecode] = ("openid", "email", "profile")
    console_roles_claim: str | None = None
    console_session: Seconds = timedelta(hours=8)
    console_idle: Seconds = timedelta(hours=1)  # idle time after which a session ends; 0: no limit
    console_label: Annotated[str, Field(max_length=40)] | None = None  # this installation's name; None: its host

    # Modules. None given: all installed packages with an `aswhom.workflows` entry point.
    workflows: Annotated[Names, NoDecode] = ()
    workflows_dir: Place = Path()  # a folder searched for those modules besides the installed packages
    allow_hosts: Annotated[AllowHosts, NoDecode] = ()  # hosts that may be private, or use plain HTTP with http://
    egress_hosts: Annotated[EgressHosts, NoDecode] = ()  # public hosts that may be reached; none given: all
    ca_file: Authorities | None = None  # certificate authorities trusted besides the public ones

    operator: Operator | None = None  # the name of the person at the command line, for the audit; None: the OS user

    log_format: Literal["json", "console"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    metrics_host: str = "127.0.0.1"
    web_metrics_port: Port = 0  # 0: served on the web's own port
    worker_metrics_port: Port = 9101  # the first worker's port; the second has the next one; 0: none
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
    workers: Annotated[int, Field(ge=1, le=10)] = 2  # processes of thirty-two threads each (docs/decisions/0004)
    task_limit: Seconds | None = None
    task_grace: Seconds | None = None
    beat_interval: Seconds | None = None
    turn_timeout: Seconds | None = None
    database_connections: Annotated[int, Field(ge=4)] | None = None  # per process, on PostgreSQL; None: by its kind
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
