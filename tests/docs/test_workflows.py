"""docs/workflows.md lists every workflow that ships, and what it shows to senders is what they may send."""

from __future__ import annotations

import json
from importlib.metadata import entry_points

from pipeline.authoring.registry import Registry
from tests.docs.pages import blocks, named, page, section

TEXT = page("workflows.md")
SHIPPED = Registry.load(sorted(point.module for point in entry_points(group="aswhom.workflows")))


def test_every_workflow_is_listed_with_its_pattern() -> None:
    table = TEXT.partition("\n## ")[0]
    assert sorted(named(table)) == sorted(declared.name for declared in SHIPPED)
    for declared in SHIPPED:
        (row,) = [line for line in table.splitlines() if line.startswith(f"| `{declared.name}` ")]
        assert f"| {declared.pattern}" in row


def test_what_is_configured_is_named() -> None:
    needs = section(TEXT, "What they need")
    for declared in SHIPPED:
        (row,) = [line for line in needs.splitlines() if line.startswith("| ") and f"`{declared.name}`" in line]
        for name in declared.config.model_fields:
            assert f"`{name}`" in row, f"{declared.name}: {name}"


def test_the_examples_for_senders_start_their_workflows() -> None:
    bodies = [json.loads(block) for block in blocks(TEXT, "json")]
    started = [match.workflow.name for body in bodies for match in SHIPPED.match("standard", body["type"], body)]
    assert started == ["update_opportunity", "open_ticket", "pay_invoice", "refund_invoice"]
