"""The table of refresh intents, which are written before the provider is asked."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
)

from identity.sql.columns import Instant, partial_index
from identity.sql.metadata import metadata

refresh_intents = Table(
    "refresh_intents",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("generation", BigInteger, nullable=False),  # of the credential presented
    Column("consented", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),  # open, answered, committed, dead, unknown, discarded, failed
    Column("opened", BigInteger, nullable=False),  # ledger number
    Column("started_at", Instant, nullable=False),
    Column("send_before", Instant, nullable=False),
    Column("settled_by", Instant, nullable=False),  # send_before plus the HTTP budget; then the outcome is unknown
    Column("presented", Integer, nullable=False),  # counted before sending
    Column("answer_sealed", LargeBinary),  # the raw answer, until it is committed or shredded
    Column("outcome", String(64)),  # for people
    Column("code", String(64)),  # of a refusal: the provider's own, or `unnamed_401`
    Column("out_of_date", String(16)),  # overtaken, revoked, moved, deleted; NULL: not out of date
    Column("retry_at", Instant),  # if failed: not presented again earlier
    Column("doubtful_since", Instant),  # start of an earlier presentation whose outcome is lost
    Column("refused_keys", JSON(none_as_null=True)),  # secrets or keys refused: another goes next
    Column("refused_since", Instant),  # of `refused_keys`: when all live ones had last been refused with this `code`
    Column("finished_at", Instant),
    Column("settled", BigInteger),  # ledger number at which its outcome was known; NULL if unknown
    UniqueConstraint("account_id", "generation"),
    partial_index("ix_refresh_intents_unsettled", "settled_by", where="state in ('open', 'answered')"),
    partial_index("ix_refresh_intents_finished", "finished_at", "id", where="finished_at is not null"),
    Index("ix_refresh_intents_settled", "settled"),
    partial_index("ix_refresh_intents_kept", "account_id", where="state = 'discarded' and answer_sealed is not null"),
)
