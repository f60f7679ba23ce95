"""The ledger database: one seam for writes, on SQLite and on PostgreSQL."""
