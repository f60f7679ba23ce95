"""On which of the two databases a test runs in `make test`."""

import pytest

# For what takes long and hardly depends on the database: PostgreSQL's turn is in `make test-slow`.
MOSTLY_SQLITE = pytest.mark.parametrize(
    "ledger_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)
