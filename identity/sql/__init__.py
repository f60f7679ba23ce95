"""Shared SQL: column types, compiled statements, the ledger sequence and its locks."""
