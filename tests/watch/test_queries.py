"""Dashboards and alerts name only metrics and labels there are, and the files Grafana reads are those of the code."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from deploy.grafana.__main__ import FILES, text
from deploy.grafana.dashboard import Panel
from identity import metrics as of_identity
from pipeline import metrics as of_pipeline
from tests.docs.metrics import metrics_of
from tests.docs.pages import ROOT
from webhooks import metrics as of_web

SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
EXPOSED = {
    f"{metric._name}{suffix}": {*metric._labelnames, *({"le"} if suffix == "_bucket" else ())}
    for module in (of_identity, of_pipeline, of_web)
    for metric in metrics_of(module)
    for suffix in SUFFIXES[str(metric._type)]
}
#: What Prometheus, its client library and kube-state-metrics add.
THEIRS = {"job", "instance", "process", "__name__", "namespace", "exported_namespace", "cronjob"}


def queries() -> Iterator[tuple[str, str]]:
    for dashboard in FILES.values():
        for panel in dashboard.panels:
            for query in panel.queries.values():
                yield f"{dashboard.uid}: {panel.title}", query
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])


@pytest.mark.parametrize(("where", "query"), list(queries()), ids=lambda value: value[:40])
def test_a_query_names_metrics_and_labels_there_are(where: str, query: str) -> None:
    names = set(re.findall(r"\baswhom_\w+", query))
    assert names <= EXPOSED.keys(), where
    matchers = re.findall(r"\{([^}]*)\}", query)
    grouped = re.findall(r"\bby \(([^)]*)\)", query)
    used = {label for one in matchers for label in re.findall(r"(\w+)\s*=", one)}
    used |= {label for one in grouped for label in re.findall(r"\w+", one)}
    assert used <= THEIRS.union(*(EXPOSED[name] for name in names)), where


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_what_the_code_says(name: str) -> None:
    written = (ROOT / "deploy/grafana" / name).read_text(encoding="utf-8")
    assert written == text(FILES[name]), "write it anew with `python -m deploy.grafana`"


@pytest.mark.parametrize("name", FILES)
def test_panels_have_a_place_of_their_own(name: str) -> None:
    panels = FILES[name].document()["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_a_query_that_names_what_is_not_there_is_found() -> None:
    wrong = Panel(title="typo", says="", queries={"": "sum(rate(aswhom_step_total[5m]))"})
    with pytest.raises(AssertionError, match="typo"):
        test_a_query_names_metrics_and_labels_there_are("typo", next(iter(wrong.queries.values())))
