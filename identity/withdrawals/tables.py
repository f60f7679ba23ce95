"""The table of withdrawals (`identity.withdrawals`)."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, String, Table, Text, text

from identity.sql.columns import Instant, partial_index
from identity.sql.metadata import metadata

# Credentials that were revoked here and must end at their provider: one row per grant, discarded refresh, refused
# connect, or token outside any grant. The last kind has its row from the moment it is minted.
withdrawals = Table(
    "withdrawals",
    metadata,
    Column("id", String(100), primary_key=True),  # <account>.<generation>, the refresh intent's, connect.<started>, own
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    # grant; refresh: from one that ended after the revocation; confined; connect: from one that was refused
    Column("origin", String(16), nullable=False),
    Column("credential", String(32), nullable=False),
    Column("generation", BigInteger, nullable=False),  # of the grant, or of the credential the refresh presented
    Column("consented", BigInteger, nullable=False),
    Column("external_id", String(200)),  # of the person who consented in a refused connect
    Column("client_id", String(200)),  # for a connect, its client; NULL: the connection's
    Column("revocation_id", String(64)),  # whose receipt lists it; NULL: not assigned yet, or a connect
    Column("state", String(16), nullable=False),  # held, pending, done, stuck, given_up, not_asked
    Column("reason", Text),
    Column("access_sealed", LargeBinary),  # these three are shredded once nothing more is asked
    Column("refresh_sealed", LargeBinary),
    Column("answer_sealed", LargeBinary),
    Column("expires_at", Instant),  # of the access token; NULL for a refresh: in its answer
    Column("ended", String(16)),  # token that has ended there: access_token, refresh_token
    Column("tries", Integer, nullable=False, default=0, server_default=text("0")),
    Column("keyless", Integer, nullable=False, default=0, server_default=text("0")),  # tries without its vault key
    Column("due_at", Instant, nullable=False),
    Column("kept_until", Instant),  # a connect awaiting confirmation, until its end begins
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Index("ix_withdrawals_account", "account_id"),
    Index("ix_withdrawals_revocation", "revocation_id"),
    # SQLite uses a partial index on `or` if the query states one side; it does not for `in`.
    partial_index(
        "ix_withdrawals_open", "state", "revocation_id", "due_at", where="state = 'pending' or state = 'stuck'"
    ),
)
