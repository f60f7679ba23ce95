"""Environment variables that are not our settings but Celery's, PostgreSQL's, Prometheus' or sudo's.

Only this module and `deploy.variables` read the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from deploy.celery_environment import TOO_LATE, celerys, too_late
from deploy.setting_faults import refuse
from deploy.setting_formats import is_operator

_OUR_NAME = re.compile(r"(aswhom(-(command|web|beat|housekeeping|(worker|revocations)(-\d+)?))?)?")


def celerys_or_refuse() -> list[str]:
    """Return Celery's own variables that are ignored. Raise Misconfigured for one that Celery has already acted on."""
    refuse(too_late(name for name, value in os.environ.items() if value))
    return celerys(os.environ)


def inherited(*, besides: Collection[str] = ()) -> dict[str, str]:
    """Return the environment that our processes pass on, without *besides*."""
    return {name: value for name, value in os.environ.items() if name not in {*TOO_LATE, *besides}}


def name_connections(process: str) -> None:
    """Name this process's connections in PostgreSQL's views and log.

    An `application_name` in the ledger's URL takes precedence, and so does a PGAPPNAME that no parent process of ours
    set.
    """
    if _OUR_NAME.fullmatch(os.environ.get("PGAPPNAME", "aswhom")):
        os.environ["PGAPPNAME"] = f"aswhom-{process}"


def libpq() -> Mapping[str, str]:
    """Return what libpq is told besides the ledger's URL."""
    return {name: value for name, value in os.environ.items() if name.startswith("PG") and value}


def share_metrics(folder: Path) -> None:
    """Let processes forked from now on add up their metrics in *folder*. Call before prometheus_client is imported."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def metrics_folder() -> Path | None:
    """Return the folder set by `share_metrics` or by the parent process."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None


def sudo_user(*, uid: int) -> str | None:
    """Return the user who became root (*uid* 0) through `sudo`. Anyone else could have set SUDO_USER themselves."""
    name = os.environ.get("SUDO_USER", "")
    return name if uid == 0 and is_operator(name) else None
