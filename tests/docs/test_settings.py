"""docs/reference/settings.md lists every setting, with the default the code has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest

from deploy.settings import Settings
from deploy.variables import PREFIX
from pipeline.broker.celery import BrokerSettings
from pipeline.broker.watchdog import TaskLimits
from pipeline.db.database import DatabaseSettings
from pipeline.duties.retention import Retention
from pipeline.execution.services import StepSettings
from pipeline.execution.worker import WorkerSettings
from pipeline.runtime_settings import RuntimeSettings
from tests.docs.pages import documents, named, page, rows
from webhooks.settings import WebSettings

DOCUMENT = page("reference/settings.md")
DEFAULTS = {row[0].strip("`"): row[1] for row in rows(DOCUMENT)}

#: Settings whose default belongs to the type that uses them: (type, its field).
ELSEWHERE: dict[str, tuple[type[Any], str]] = {
    "max_body": (WebSettings, "max_body"),
    "api_rate": (WebSettings, "api_rate"),
    "webhook_tenant_rate": (WebSettings, "webhook_tenant_rate"),
    "send_within": (StepSettings, "send_within"),
    "call_deadline": (StepSettings, "call_deadline"),
    "step_attempts": (StepSettings, "attempts"),
    "step_backoff": (StepSettings, "backoff"),
    "step_backoff_cap": (StepSettings, "backoff_cap"),
    "yield_after": (StepSettings, "yield_after"),
    "consent_wait": (StepSettings, "consent_wait"),
    "connect_lifetime": (RuntimeSettings, "connect_lifetime"),
    "worker_hold": (WorkerSettings, "claim_for"),
    "job_runs": (WorkerSettings, "runs"),
    "job_backoff": (WorkerSettings, "backoff"),
    "misconfigured_delay": (WorkerSettings, "misconfigured_delay"),
    "task_limit": (TaskLimits, "task"),
    "task_grace": (TaskLimits, "grace"),
    "beat_interval": (BrokerSettings, "beat_interval"),
    "turn_timeout": (DatabaseSettings, "turn_timeout"),
    "window": (RuntimeSettings, "window"),
    "keep_bodies": (Retention, "bodies"),
    "keep_steps": (Retention, "steps"),
    "keep_intents": (Retention, "intents"),
    "keep_sessions": (Retention, "sessions"),
    "keep_idempotency_keys": (Retention, "idempotency_keys"),
    "keep_api_keys": (Retention, "api_keys"),
    "keep_slots": (Retention, "slots"),
    "keep_jobs": (Retention, "jobs"),
    "keep_deliveries": (Retention, "deliveries"),
    "keep_audit": (Retention, "audit"),
}
#: Those whose default is a sentence.
IN_WORDS = {
    "database_url",
    "broker_url",
    "database_connections",
    "database_url_file",
    "broker_url_file",
    "redis_url_file",
    "console_client_secret_file",
    "redis_url",
    "vault_key_file",
    "vault_keys",
    "signing_key_file",
    "base_url",
    "web_processes",
    "webhook_rate",
    "workflows",
    "workflows_dir",
    "allow_hosts",
    "egress_hosts",
    "operator",
    "ca_file",
    "console",
    "console_issuer",
    "console_client_id",
    "console_client_secret",
    "console_scopes",
    "console_roles_claim",
    "console_label",
}
#: A whole name, not a family of them such as `ASWHOM_KEEP_…`.
_NAMED = re.compile(rf"{PREFIX}[A-Z_]*[A-Z]\b")
#: What the changelog says to unset.
_FORMER = {"ASWHOM_AUDIT_KEY_FILE", "ASWHOM_VISIBILITY_TIMEOUT"}
_OF_THE_TESTS = {"ASWHOM_SHARED_DATA"}


def _defaults() -> Iterator[tuple[str, object]]:
    for name, field in Settings.model_fields.items():
        if name in ELSEWHERE:
            owner, of_owner = ELSEWHERE[name]
            yield name, next(one.default for one in fields(owner) if one.name == of_owner)
        elif name not in IN_WORDS:
            yield name, field.default


def test_every_setting_is_listed_and_no_other() -> None:
    assert sorted(named(DOCUMENT)) == sorted(PREFIX + name.upper() for name in Settings.model_fields)


def test_no_document_names_a_setting_that_does_not_exist() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | _OF_THE_TESTS
    found = {path.name: set(_NAMED.findall(path.read_text(encoding="utf-8"))) - known for path in documents()}
    assert found.pop("CHANGELOG.md") == _FORMER
    assert {name: unknown for name, unknown in found.items() if unknown} == {}


@pytest.mark.parametrize(
    ("name", "default"), list(_defaults()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_default_is_the_codes(name: str, default: object) -> None:
    value = default.total_seconds() if isinstance(default, timedelta) else default
    text = f"{value:.15g}" if isinstance(value, float) else str(value)
    text = text.lower() if isinstance(value, bool) else text
    assert DEFAULTS[PREFIX + name.upper()].strip("`") == text


def test_the_browsers_cookie_lives_as_long_as_its_link() -> None:
    of_cookie = next(one.default for one in fields(WebSettings) if one.name == "connect_lifetime")
    of_link = next(one.default for one in fields(RuntimeSettings) if one.name == "connect_lifetime")
    assert of_cookie == of_link
