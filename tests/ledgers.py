"""On which of the two databases a test runs in `make test`."""

import pytest

# For what takes long and hardly depends on the database: PostgreSQL's turn is in `make test-slow`. Of a test, or of
# all those of a module that are to have a ledger of each kind.
MOSTLY_SQLITE = pytest.mark.mostly_sqlite

_EACH = pytest.mark.parametrize(
    "ledger_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)


def share_out(metafunc: pytest.Metafunc) -> None:
    """Give a test that is marked so its ledgers, as if it had said them itself."""
    marked = metafunc.definition.get_closest_marker(MOSTLY_SQLITE.name)
    if marked and "ledger_url" in metafunc.fixturenames:
        metafunc.definition.add_marker(_EACH)
