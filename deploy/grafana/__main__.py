"""`python -m deploy.grafana`: writes the dashboards beside this file, or into the given folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.grafana.dashboard import Dashboard
from deploy.grafana.identity_owner import IDENTITY_OWNER
from deploy.grafana.operators import OPERATORS

FILES: Mapping[str, Dashboard] = {"operators.json": OPERATORS, "identity.json": IDENTITY_OWNER}


def text(dashboard: Dashboard) -> str:
    """Return a dashboard's file."""
    return json.dumps(dashboard.document(), indent=1, ensure_ascii=False) + "\n"


def main(folder: Path) -> None:
    for name, dashboard in FILES.items():
        (folder / name).write_text(text(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
