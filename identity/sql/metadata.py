"""What all tables share: their metadata, and SQLite's ledger sequence."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite's ledger sequence: one row. PostgreSQL uses the sequence of the same name.
ledger_numbers = Table("ledger_numbers", metadata, Column("id", Integer, primary_key=True), Column("value", BigInteger))
