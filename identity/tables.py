"""The tables of identity. Every time is an `Instant`; every secret column holds ciphertext of the vault."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from identity.sql.columns import Instant, partial_index
from identity.sql.metadata import metadata

tenants = Table(
    "tenants",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("deleted_at", Instant),
    Column("webhook_rate", Integer),  # deliveries a minute, over all its connections; NULL: the setting's
)

agents = Table(
    "agents",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id")),  # NULL: an agent of the platform
    Column("name", String(200), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("api_rate", Integer),  # requests a minute of all its keys together; NULL: each key has a quota of its own
)

principals = Table(
    "principals",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("name", String(200), nullable=False),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("tenant_id", "kind", "name"),
)

provider_connections = Table(
    "provider_connections",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id")),  # NULL: the platform's
    Column("provider", String(32), nullable=False),
    Column("client_id", String(200), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("api_url", Text, nullable=False),
    Column("authorize_url", Text, nullable=False),
    Column("token_url", Text, nullable=False),
    Column("config", JSON, nullable=False),
    Column("paused_reason", Text),  # set by invalid_client: the operator must act
    Column("resumed", BigInteger),  # ledger number of an operator's last resume: older refusals no longer count
    # True once a tenant's own connection has listed an installation. From then on deliveries for unlisted ones are
    # refused, even after the listed one is removed.
    Column("only_listed", Boolean, nullable=False, server_default=false()),
    Column("created_at", Instant, nullable=False),
)

# Several live rows of one name overlap during a rotation.
connection_secrets = Table(
    "connection_secrets",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("connection_id", ForeignKey("provider_connections.id"), nullable=False),
    Column("name", String(32), nullable=False),  # client_secret, webhook_secret, private_key
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("used_from", Instant),  # the switch date: preferred over older ones from then on; NULL: since created_at
    Column("refused_at", Instant),  # the provider refused it while another was live: it is tried last
    Column("retired_at", Instant),
    Column("key_id", String(255)),  # of a private key: the `kid` it signs with; NULL: the connection's `key_id`
    Index("ix_connection_secrets_live", "connection_id", "name"),
)

installations = Table(
    "installations",
    metadata,
    Column("connection_id", ForeignKey("provider_connections.id"), primary_key=True),
    Column("external_id", String(200), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    # of a workspace: the organization that has the app, learned from its deliveries
    Column("organization", String(200)),
    Column("created_at", Instant, nullable=False),
    Index("ix_installations_external", "external_id"),
)

# Every place where somebody consented, or that was ever listed. An end signalled for any other place concerns a
# stranger who also has the app.
places_seen = Table(
    "places_seen",
    metadata,
    Column("connection_id", String(64), primary_key=True),  # removed with the connection
    Column("external_id", String(200), primary_key=True),  # '': somebody connected, at an unknown place
)

aliases = Table(
    "principal_aliases",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), primary_key=True),
    Column("provider", String(32), primary_key=True),
    Column("external_id", String(200), primary_key=True),
    Column("login", String(200)),
    Column("principal_id", ForeignKey("principals.id"), nullable=False),
    Column("made_by", String(200), nullable=False),  # connect:<account> or admin:<who>
    Column("created_at", Instant, nullable=False),
)

# One row for each scope that was ever revoked or stopped: the whole memory of revocation (docs/decisions/0003).
scopes = Table(
    "scopes",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("revoked", BigInteger, nullable=False, default=0),
    Column("stopped", Boolean, nullable=False, default=False),
    # Rows are never removed, and few are stopped. Each dialect needs the wording of its own queries to use the index.
    Index(
        "ix_scopes_stopped", "kind", "key", postgresql_where=text("stopped is true"), sqlite_where=text("stopped is 1")
    ),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("connection_id", ForeignKey("provider_connections.id"), nullable=False),
    Column("principal_id", ForeignKey("principals.id"), nullable=False),
    Column("provider", String(32), nullable=False),
    Column("credential", String(32), nullable=False),
    Column("state", String(32), nullable=False),
    Column("reason", Text),  # why it is not active, in words, only for people
    Column("reconnect_cause", String(16)),  # the cause of `needs_reconnect`: dead, unknown, person, expired, refused
    Column("external_id", String(200)),  # the provider's id of the person who consented, or of the installation
    Column("external_login", String(200)),
    # the repositories that an installation's tokens are limited to; NULL: all
    Column("resources", JSON(none_as_null=True)),
    # The provider's time of the newest suspension, or its end, and of the newest permissions it reported.
    Column("suspension_said_at", Instant),
    Column("permissions_said_at", Instant),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    UniqueConstraint("tenant_id", "connection_id", "principal_id"),
    Index("ix_accounts_external", "connection_id", "external_id"),
    Index("ix_accounts_principal", "principal_id"),  # for a user's revocation
    Index("ix_accounts_created", "created_at", "id"),
    Index("ix_accounts_tenant", "tenant_id", "created_at", "id"),
    partial_index("ix_accounts_troubled", "created_at", "id", where="state in ('needs_reconnect', 'suspended')"),
)

grants = Table(
    "grants",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("consented", BigInteger, nullable=False),  # ledger number at which the connect session began
    Column("access_sealed", LargeBinary),  # NULL once dead or shredded
    Column("refresh_sealed", LargeBinary),
    Column("token_type", String(32), nullable=False),
    Column("scopes", JSON, nullable=False),
    # the scopes it was narrowed to: no refresh widens them, a consent lifts this
    Column("ceiling", JSON(none_as_null=True)),
    Column("obtained_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("consented_at", Instant),  # when the connect session began, by our clock; NULL: before this column existed
    # Google names a refresh token that it revoked by one of these (`identity.oauth.token_digests`).
    Column("refresh_digest", String(88)),
    Column("refresh_prefix_digest", String(88)),
    Index("ix_grants_refresh_digest", "refresh_digest"),
    Index("ix_grants_refresh_prefix_digest", "refresh_prefix_digest"),
    Column("used_at", Instant),  # written by the first lease of a generation: later than obtained_at means in use
    Column("keepalive_due", Instant),  # when housekeeping looks at it; NULL: nothing to keep alive
    Column("keepalive_rank", Integer, nullable=False, default=0, server_default=text("0")),  # lower ranks first
    Column("keepalive_failures", Integer, nullable=False, default=0, server_default=text("0")),  # consecutive
    Column("keepalive_error", Text),  # why the last attempt did not keep it alive
    partial_index("ix_grants_keepalive", "keepalive_rank", "keepalive_due", where="keepalive_due is not null"),
)

# A tenant's policy file, one row a version: the newest applies from its commit on, older ones record the history.
policies = Table(
    "policies",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("sha256", String(64), nullable=False),
    Column("document", Text, nullable=False),
    Column("made_by", String(200), nullable=False),
    Column("created_at", Instant, nullable=False),
)

# The permitted senders of Security Event Tokens (RFC 8417), and how their subjects are found.
transmitters = Table(
    "transmitters",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("issuer", Text, nullable=False),
    Column("audience", Text, nullable=False),
    Column("jwks_url", Text, nullable=False),
    # the tenant whose people it names; NULL: those of the provider connection
    Column("tenant_id", ForeignKey("tenants.id")),
    # Its subjects are the external ids of this connection's accounts; NULL: aliases of the tenant, under its own id.
    Column("connection_id", ForeignKey("provider_connections.id")),
    Column("other_audiences", JSON(none_as_null=True)),  # NULL: none but `audience`
    Column("subject_issuer", Text),  # NULL: its own issuer
    Column("plain_jwt", Boolean, nullable=False, server_default=false()),  # True: no security event typ is required
    Column("created_at", Instant, nullable=False),
    Column("stream_status", String(20)),  # as it last reported, or as its later events imply; NULL: nothing
    Column("stream_told_at", Instant),  # time of that report
    Column("removed_at", Instant),  # its id stays taken: its events and the aliases of its people refer to it
)
