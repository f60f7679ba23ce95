"""What the environment says that is no setting of ours: it is Celery's, PostgreSQL's, Prometheus' or sudo's.

With `deploy.variables` the only reader of the environment.
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
    """Which variables of Celery's own are not heeded. Raises Misconfigured for one that was already."""
    refuse(too_late(name for name, value in os.environ.items() if value))
    return celerys(os.environ)


def inherited(*, besides: Collection[str] = ()) -> dict[str, str]:
    """All of it that a process of ours hands on to another, *besides* these."""
    return {name: value for name, value in os.environ.items() if name not in {*TOO_LATE, *besides}}


def name_connections(process: str) -> None:
    """Have PostgreSQL's views and log call this process's connections by its name.

    An `application_name` in the ledger's URL goes before, and so does a PGAPPNAME that is not a parent's of ours.
    """
    if _OUR_NAME.fullmatch(os.environ.get("PGAPPNAME", "aswhom")):
        os.environ["PGAPPNAME"] = f"aswhom-{process}"


def libpq() -> Mapping[str, str]:
    """What PostgreSQL's library is told besides the ledger's URL."""
    return {name: value for name, value in os.environ.items() if name.startswith("PG") and value}


def share_metrics(folder: Path) -> None:
    """Have the processes forked from here on add up their metrics in *folder*. Before prometheus_client is imported."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def metrics_folder() -> Path | None:
    """The folder that `share_metrics`, or whoever started us, named."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None


def sudo_user(*, uid: int) -> str | None:
    """Who became root (*uid* 0) by `sudo`, as it says in SUDO_USER; anybody else may have set that themselves."""
    name = os.environ.get("SUDO_USER", "")
    return name if uid == 0 and is_operator(name) else None
