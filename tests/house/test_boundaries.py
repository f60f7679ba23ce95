"""Who may read what: the rules about imports that the import contracts cannot say."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("deploy", "identity", "pipeline", "tasks", "webhooks")


def _modules(*packages: str) -> Iterator[tuple[Path, ast.Module]]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text())


def _imports(tree: ast.Module) -> Iterator[str]:
    """Full names; a relative import, which ruff bans, comes as its dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _reads_environment(tree: ast.Module) -> bool:
    names = {"os.environ", "os.environb", "os.getenv"}
    return any(name in names or name.startswith("pydantic_settings") for name in _imports(tree)) or any(
        isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and f"{node.value.id}.{node.attr}" in names
        for node in ast.walk(tree)
    )


def test_two_files_alone_read_the_environment() -> None:
    readers = {str(path) for path, tree in _modules(*PACKAGES) if _reads_environment(tree)}
    assert readers == {"deploy/variables.py", "deploy/environment.py"}


def test_a_reader_of_the_environment_is_noticed() -> None:
    for source in ("import os\nos.environ['X']", "from os import getenv", "import os\nos.getenv('X')"):
        assert _reads_environment(ast.parse(source)), source
    assert not _reads_environment(ast.parse("import os\nos.getpid()"))


#: What upstreams are given, to verify capabilities by: one file that imports nothing of ours.
GIVEN_AWAY = "identity.capability.verifier"


def test_the_sandbox_imports_nothing_of_ours() -> None:
    foreign = [
        f"{path}: {name}"
        for path, tree in _modules("deploy/sandbox")
        for name in _imports(tree)
        if name.split(".")[0] in (*PACKAGES, "tests")
        and not f"{name}.".startswith("deploy.sandbox.")
        and not (str(path) == "deploy/sandbox/invoices/leave.py" and f"{name}.".startswith(f"{GIVEN_AWAY}."))
    ]
    assert foreign == []


# Who may UPDATE a table with states: its movers, and writers of its other columns.
WRITERS = {
    "accounts": {"identity/accounts/states.py", "identity/connect/consent_ledger.py"},
    "jobs": {
        "deploy/trial/passing.py",  # dates alone, in a ledger of a test
        "pipeline/jobs/awaited.py",  # that what was awaited has come
        "pipeline/jobs/bells.py",
        "pipeline/jobs/claims.py",  # a claim
        "pipeline/jobs/moves.py",
        "pipeline/steps/openings.py",
        "pipeline/revocation/statements.py",
        "pipeline/jobs/waits.py",  # when a wait is looked at next
        "pipeline/duties/retention.py",  # the event and `pruned_at` of jobs that have ended
    },
    "steps": {"pipeline/jobs/moves.py", "deploy/trial/passing.py"},
    "attempts": {"pipeline/jobs/moves.py", "deploy/trial/passing.py"},
}


def _updates(tree: ast.Module) -> Iterator[str]:
    """The names that `update(name)` and `name.update()` are called with: of tables, and of dictionaries."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id == "update":
            yield from (name for argument in node.args if (name := _table_named(argument)))
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "update":
            yield from (name for name in (_table_named(node.func.value),) if name)


def _table_named(node: ast.expr) -> str:
    """The last name of `jobs`, `jobs_table` or `tables.jobs`, without the word table."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name.removesuffix("_table")


def test_an_update_of_a_table_is_noticed_however_it_is_written() -> None:
    for source in (
        "update(jobs)",
        "update(jobs_table)",
        "jobs.update()",
        "jobs_table.update().where(x)",
        "tables.jobs.update()",
    ):
        assert list(_updates(ast.parse(source))) == ["jobs"], source


def test_states_are_written_by_their_movers_alone() -> None:
    found = {(str(path), table) for path, tree in _modules(*PACKAGES) for table in _updates(tree) if table in WRITERS}
    assert found == {(path, table) for table, paths in WRITERS.items() for path in paths}


def _test_modules(tree: ast.Module) -> list[str]:
    return [name for name in _imports(tree) if name.startswith("tests.") and ".test_" in name]


def test_what_tests_share_is_in_no_test_module() -> None:
    """Whoever imports one collects its fixtures, and cannot tell what of it others rely on."""
    assert [f"{path}: {name}" for path, tree in _modules("tests") for name in _test_modules(tree)] == []


def test_a_test_module_that_is_imported_is_noticed() -> None:
    for source in ("from tests.a.test_b import c", "from tests.a import test_b", "import tests.a.test_b"):
        assert _test_modules(ast.parse(source)), source
    assert not _test_modules(ast.parse("from tests.a.b import c"))
