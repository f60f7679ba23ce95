"""docs/reference/metrics.md lists every metric with its kind and labels."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from identity import metrics as of_identity
from pipeline import metrics as of_pipeline
from tests.docs.metrics import metrics_of
from tests.docs.pages import named, page, rows, section
from webhooks import metrics as of_web

DOCUMENT = page("reference/metrics.md")
HEADINGS = {
    "Work (`pipeline/metrics.py`)": of_pipeline,
    "Credentials (`identity/metrics.py`)": of_identity,
    "The web (`webhooks/metrics.py`)": of_web,
}


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_metric_is_listed_with_its_kind_and_labels(heading: str) -> None:
    said = {tuple(cell.strip("`") for cell in row[:3]) for row in rows(section(DOCUMENT, heading))}
    assert said == {(one._name, one._type, ", ".join(one._labelnames)) for one in metrics_of(HEADINGS[heading])}


def test_none_is_listed_twice() -> None:
    assert len(named(DOCUMENT)) == len(set(named(DOCUMENT)))


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_metric_is_called_not_counted_only_while_nothing_counts_it(heading: str) -> None:
    module = HEADINGS[heading]
    folder = Path(str(module.__file__)).parent
    code = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    named_as = {value._name: name for name, value in vars(module).items() if isinstance(value, MetricWrapperBase)}
    for row in rows(section(DOCUMENT, heading)):
        used = re.search(rf"\b{named_as[row[0].strip('`')]}(\.|\)| if )", code)
        assert (used is None) == (row[3] == "declared, and not counted yet"), row[0]
