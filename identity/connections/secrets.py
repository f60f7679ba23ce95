"""The sealed secrets of provider connections; several are live during a rotation."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection, and_, bindparam, func, insert, literal, or_, select, update

from identity.connections.registry import connection_of, lock_connection, resume_connection
from identity.errors import BadInput, Misconfigured
from identity.keys.vault import Binding, Vault
from identity.model import Credential, ProviderConnection
from identity.secret import Secret
from identity.sql.columns import Instant, database_now
from identity.sql.prepared import Prepared
from identity.tables import connection_secrets, provider_connections

# Built once: every delivery runs these.
_USED_FROM = func.coalesce(connection_secrets.c.used_from, connection_secrets.c.created_at)
_LIVE = and_(
    connection_secrets.c.connection_id == provider_connections.c.id,
    connection_secrets.c.name == bindparam("called"),
    or_(connection_secrets.c.retired_at.is_(None), connection_secrets.c.retired_at > database_now()),
)
_SECRET = [column.label(f"secret_{column.name}") for column in connection_secrets.c]
_WITH_LIVE = Prepared(
    select(provider_connections, *_SECRET)
    .select_from(provider_connections.outerjoin(connection_secrets, _LIVE))
    .where(provider_connections.c.id == bindparam("owner"))
    # Unrefused first, then those past their switch date, then the newest.
    .order_by(
        connection_secrets.c.refused_at.is_not(None),
        database_now() < _USED_FROM,
        _USED_FROM.desc(),
        connection_secrets.c.id.desc(),
    )
)

CLIENT_SECRET, WEBHOOK_SECRET, PRIVATE_KEY = "client_secret", "webhook_secret", "private_key"

_KEY_IN_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY")  # RFC 7468 §10, §11, and OpenSSL's older labels


@dataclass(frozen=True, kw_only=True)
class SealedSecret:
    """A secret of a provider connection, as it is stored."""

    id: str
    connection: str
    name: str  # client_secret, webhook_secret, private_key
    binding: Binding
    sealed: bytes = field(repr=False)
    created_at: datetime
    used_from: datetime  # preferred over older ones from then on
    refused_at: datetime | None = None  # the provider refused it while another was live
    key_id: str | None = None  # the provider's name for a private key; None: the connection's `key_id`

    def open(self, vault: Vault) -> Secret:
        """Return the secret itself. Raises Misconfigured."""
        return vault.open(self.sealed, self.binding)

    def signing_for(self, owner: ProviderConnection) -> ProviderConnection:
        """Return *owner* with this key's id, so that a server that selects keys by `kid` finds the right one."""
        return owner if self.key_id is None else replace(owner, config={**owner.config, "key_id": self.key_id})


def seal_secret(
    vault: Vault,
    owner: ProviderConnection,
    *,
    id: str,
    name: str,
    secret: Secret,
    now: datetime,
    used_from: datetime | None = None,
    key_id: str | None = None,
) -> SealedSecret:
    """Seal a secret of *owner*, ready for `add_secret`. *used_from* None: in use at once.

    Raises BadInput for an invalid client secret (RFC 6749 §A.2), and for an invalid *key_id* or one without a key.
    """
    if key_id is not None and (name != PRIVATE_KEY or not 0 < len(key_id) <= 255 or not key_id.isprintable()):
        raise BadInput(f"a key id is the name, of 255 characters at most, by which the provider knows a {PRIVATE_KEY}")
    if name == CLIENT_SECRET:
        # First: told only about line breaks, somebody would put the key on one line.
        if _KEY_IN_PEM.search(secret.reveal()):
            raise BadInput(
                "this is a private key, and as the client secret it would be shown to the token endpoint: "
                f"store it as {PRIVATE_KEY}"
            )
        if not secret.is_printable():
            raise BadInput(
                "the client secret holds a line break, a control character or one that is not ASCII, so it is not one: "
                "give it alone, on one line"
            )
    binding = _binding(owner.tenant, owner.id, owner.provider, name)
    return SealedSecret(
        id=id,
        connection=owner.id,
        name=name,
        binding=binding,
        sealed=vault.seal(secret, binding),
        created_at=now,
        used_from=used_from or now,
        key_id=key_id,
    )


def add_secret(connection: Connection, secret: SealedSecret) -> None:
    """Add a live secret beside the existing ones. A new client secret or key also resumes the connection."""
    row = {
        "id": secret.id,
        "connection_id": secret.connection,
        "name": secret.name,
        "sealed": secret.sealed,
        "created_at": secret.created_at,
        "used_from": secret.used_from,
        "key_id": secret.key_id,
    }
    connection.execute(insert(connection_secrets), row)
    if secret.name in (CLIENT_SECRET, PRIVATE_KEY):
        resume_connection(connection, secret.connection)


def retire_secret(connection: Connection, secret: str, *, at: datetime | None = None) -> bool:
    """End a secret's life at *at*, which may lie ahead: until then both it and its successor are live.

    *at* None: now, by the database's clock. A future end can be changed again. False if the secret has already ended.
    """
    end = database_now() if at is None else literal(at, Instant)
    live = or_(connection_secrets.c.retired_at.is_(None), connection_secrets.c.retired_at > database_now())
    retired = update(connection_secrets).where(connection_secrets.c.id == secret, live).values(retired_at=end)
    return connection.execute(retired).rowcount == 1


def refuse_secret(connection: Connection, secret: str, *, at: datetime) -> bool:
    """Mark that the provider refused it while another is live, which is preferred from now on.

    False if already marked.
    """
    refused = update(connection_secrets).where(
        connection_secrets.c.id == secret, connection_secrets.c.refused_at.is_(None)
    )
    return connection.execute(refused.values(refused_at=at)).rowcount == 1


def was_retired(connection: Connection, owner: str, name: str, *, since: datetime) -> bool:
    """True if a secret of that name ended after *since* or is to end: it may have been presented in between."""
    columns = connection_secrets.c
    ended = select(columns.id).where(columns.connection_id == owner, columns.name == name, columns.retired_at > since)
    return connection.execute(ended.limit(1)).first() is not None


def accept_secret(connection: Connection, secret: str) -> None:
    """Clear a secret's refusal mark, since the provider accepts it now."""
    accepted = update(connection_secrets).where(
        connection_secrets.c.id == secret, connection_secrets.c.refused_at.is_not(None)
    )
    connection.execute(accepted.values(refused_at=None))


def authenticator(owner: ProviderConnection, credential: Credential) -> str | None:
    """Return the name of the secret that authenticates the client for such tokens; None if nothing does."""
    if credential is Credential.STATIC:
        return None
    by_key = credential in (Credential.INSTALLATION, Credential.JWT_BEARER)
    return PRIVATE_KEY if by_key else client_secret_name(owner)


def ending_authenticator(owner: ProviderConnection, credential: Credential) -> str | None:
    """Return the name of the client's secret for ending such a token; None if the token itself suffices.

    Revocation uses the client's own secret (RFC 7009 §2.1), never the key that signed for the token.
    """
    return None if credential in (Credential.STATIC, Credential.INSTALLATION) else client_secret_name(owner)


def rotate_secret(
    connection: Connection, secret: SealedSecret, *, retire_at: datetime | None
) -> tuple[SealedSecret, ...]:
    """Add a successor to the one live secret of its name; the former one ends at *retire_at*, if given.

    Until then both are live: the new one is preferred from its switch date, and a refused one gives way to the other.
    Returns the secrets that were live. Raises Misconfigured.
    """
    lock_connection(connection, secret.connection)  # of two concurrent rotations, the second finds the first under way
    former = live_secrets(connection, secret.connection, secret.name)
    if len(former) > 1:
        ids = ", ".join(one.id for one in former)
        raise Misconfigured(
            f"a rotation of {secret.name} of {secret.connection} is under way ({ids}): end it with "
            "`aswhom connections retire-secret`"
        )
    add_secret(connection, secret)
    if retire_at is not None:
        for one in former:
            retire_secret(connection, one.id, at=retire_at)
    return former


def live_secrets(connection: Connection, owner: str, name: str) -> tuple[SealedSecret, ...]:
    """Return the live secrets of that name, the preferred one first; several during a rotation."""
    found = find_with_secrets(connection, owner, name)
    return found[1] if found else ()


def find_with_secrets(
    connection: Connection, owner: str, name: str
) -> tuple[ProviderConnection, tuple[SealedSecret, ...]] | None:
    """Return that provider connection and its `live_secrets`, in one statement; None if there is no such connection."""
    rows = _WITH_LIVE.run(connection, {"owner": owner, "called": name}).all()
    if not rows:
        return None
    secrets = tuple(
        SealedSecret(
            id=row.secret_id,
            connection=owner,
            name=name,
            binding=_binding(row.tenant_id, owner, row.provider, name),
            sealed=row.secret_sealed,
            created_at=row.secret_created_at,
            used_from=row.secret_used_from or row.secret_created_at,
            refused_at=row.secret_refused_at,
            key_id=row.secret_key_id,
        )
        for row in rows
        if row.secret_id is not None
    )
    return connection_of(rows[0]), secrets


def client_secret_name(owner: ProviderConnection) -> str:
    """Return the name of the secret by which the client itself authenticates."""
    return PRIVATE_KEY if owner.config.get("client_auth") == "private_key_jwt" else CLIENT_SECRET


def _binding(tenant: str | None, owner: str, provider: str, name: str) -> Binding:
    return Binding(tenant=tenant or "", record=owner, provider=provider, field=name)
