"""The policy that the documents show is one that this installation's workflows know."""

from __future__ import annotations

import re

from deploy import process
from deploy.settings import load
from identity.policy.file import read_policy
from pipeline.db.database import Database
from pipeline.policy.names import nobody_left, unknown_names, without_amount
from tests.docs.pages import ROOT


def test_the_example_is_a_policy_and_names_what_there_is(sqlite_database: Database) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/policy.md").read_text(), re.DOTALL)
    stated, workflows = read_policy(example), process.workflows(load())
    found = sqlite_database.read(lambda c: unknown_names(c, workflows, "acme", stated))
    assert [one for one in found if "the approver" not in one] == []
    assert len(found) == 2  # the people of the example are nobody's here
    assert nobody_left(workflows, stated) == []
    assert without_amount(workflows, stated) == []
