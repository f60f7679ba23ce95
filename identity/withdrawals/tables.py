"""The table of withdrawals: what `identity.withdrawals` keeps."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, String, Table, Text, text

from identity.sql.columns import Instant, partial_index
from identity.tables import metadata

# Credentials that were revoked here and are to end at their provider too: one row a grant, a discarded refresh, a
# refused connect, or a token that is in no grant, which has its row from when it was minted.
withdrawals = Table(
    "withdrawals",
    metadata,
    Column("id", String(100), primary_key=True),  # <account>.<generation>, the refresh intent's, connect.<started>, own
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    # grant; refresh: won by one that ended after the revocation; confined; connect: won by one that was refused
    Column("origin", String(16), nullable=False),
    Column("credential", String(32), nullable=False),
    Column("generation", BigInteger, nullable=False),  # of the grant, or of what the refresh presented
    Column("consented", BigInteger, nullable=False),
    Column("external_id", String(200)),  # of who consented, in a connect that was refused
    Column("client_id", String(200)),  # of a connect, the client that won it; NULL: the connection's
    Column("revocation_id", String(64)),  # on whose receipt it is; NULL: not said yet, or of a connect
    Column("state", String(16), nullable=False),  # held, pending, done, stuck, given_up, not_asked
    Column("reason", Text),
    Column("access_sealed", LargeBinary),  # these three are shredded when there is nothing to ask any more
    Column("refresh_sealed", LargeBinary),
    Column("answer_sealed", LargeBinary),
    Column("expires_at", Instant),  # of the access token; NULL of what a refresh won: its answer says it
    Column("ended", String(16)),  # which of its two tokens has ended there: access_token, refresh_token
    Column("tries", Integer, nullable=False, default=0, server_default=text("0")),
    Column("keyless", Integer, nullable=False, default=0, server_default=text("0")),  # tries without its vault key
    Column("due_at", Instant, nullable=False),
    Column("kept_until", Instant),  # of a connect that is to be confirmed, until it is or its end begins
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Index("ix_withdrawals_account", "account_id"),
    Index("ix_withdrawals_revocation", "revocation_id"),
    # SQLite finds an `or` of which a statement says one side, and no `in`.
    partial_index(
        "ix_withdrawals_open", "state", "revocation_id", "due_at", where="state = 'pending' or state = 'stuck'"
    ),
)
