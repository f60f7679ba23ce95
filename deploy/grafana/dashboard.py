"""Dashboards as rows of panels, each a question with its queries, rendered to Grafana's JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

_WIDTH, _HEIGHT = 24, 8  # Grafana's grid
_SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A question, and the PromQL that answers it: legend → query."""

    title: str
    says: str  # how to read it, and what to do
    queries: Mapping[str, str]
    unit: str = "short"
    kind: Literal["timeseries", "stat"] = "timeseries"
    width: int = 8


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """A dashboard for one role."""

    uid: str
    title: str
    says: str
    rows: Mapping[str, tuple[Panel, ...]]

    @property
    def panels(self) -> Iterator[Panel]:
        for panels in self.rows.values():
            yield from panels

    def document(self) -> dict[str, Any]:
        """Return the JSON model of Grafana 10 and later."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.says,
            "tags": ["aswhom"],
            "schemaVersion": 39,
            "editable": False,
            "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"},
            "templating": {
                "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
            },
            "panels": list(self._placed()),
        }

    def _placed(self) -> Iterator[dict[str, Any]]:
        id, y = 0, 0
        for title, panels in self.rows.items():
            id += 1
            yield {
                "id": id,
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": _at(0, y, 24, 1),
            }
            x, y = 0, y + 1
            for panel in panels:
                if x + panel.width > _WIDTH:
                    x, y = 0, y + _HEIGHT
                id += 1
                yield {"id": id, **_drawn(panel), "gridPos": _at(x, y, panel.width, _HEIGHT)}
                x += panel.width
            y += _HEIGHT


def _drawn(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _at(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}
