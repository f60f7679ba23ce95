"""Writes docs/failure-cases.md from the cases and the tests named after them: `python -m tests.docs.failure_cases`."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from deploy.sandbox.provider.cases import CASES
from tests.docs.pages import DOCS, ROOT

PAGE = DOCS / "failure-cases.md"
TESTS = ROOT / "tests" / "failure_cases"

HEAD = """\
# Failure cases

Thirty ways in which real systems lost the grants they were given, from their public issue trackers. A sandbox process
plays the provider of each case, so that you can point a profile, a client or a system of your own at it:

```sh
aswhom sandbox list
aswhom sandbox provider --case 10
```

The test of each case runs the coordinator, or a worker, against that process, on SQLite and on PostgreSQL. This page is
generated from the cases and the tests with `python -m tests.docs.failure_cases`, and a test compares it.

| | case | what the provider does | what Aswhom does | seen at |
|---|---|---|---|---|
"""


@dataclass(frozen=True, kw_only=True)
class Test:
    """The test of one case."""

    name: str
    says: str  # its docstring, in one line
    file: Path


def tests() -> dict[int, list[Test]]:
    """The tests by the number of their case."""
    found: dict[int, list[Test]] = {}
    for file in sorted(TESTS.glob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            named = re.match(r"test_case_(\d\d)_", node.name) if isinstance(node, ast.FunctionDef) else None
            if named and isinstance(node, ast.FunctionDef):
                says = " ".join((ast.get_docstring(node) or "").split())
                found.setdefault(int(named[1]), []).append(Test(name=node.name, says=says, file=file))
    return found


def page() -> str:
    """The whole document."""
    rows = [HEAD]
    for number, case in sorted(CASES.items()):
        does = "<br>".join(
            f"{test.says} [`{test.name}`](../{test.file.relative_to(ROOT)})" for test in tests().get(number, [])
        )
        rows.append(f"| {number} | {case.name} | {case.says} | {does} | {case.seen} |\n")
    return "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
