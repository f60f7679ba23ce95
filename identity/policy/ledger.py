"""Policies in the ledger: versions of a tenant's file, of which the newest applies from its commit on."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from sqlalchemy import Connection, Row, ScalarSelect, bindparam, func, insert, select

from identity import audit
from identity.audit import Act, AsWhom
from identity.errors import BadInput, Misconfigured
from identity.model import Scope, ScopeKind
from identity.policy.file import digest_of, read_policy
from identity.policy.rules import FACTS_ALONE, Policy
from identity.sql.prepared import Prepared
from identity.sql.sequence import lock_exclusive
from identity.tables import policies

_OF_TENANT = policies.c.tenant_id == bindparam("tenant")
_NEWEST = select(func.coalesce(func.max(policies.c.version), 0)).where(_OF_TENANT)
_VERSION = Prepared(_NEWEST)
_TEXT = Prepared(select(policies.c.document).where(_OF_TENANT, policies.c.version == bindparam("version")))


@dataclass(frozen=True, kw_only=True)
class Applied:
    """The result of `apply_policy`. *changed* is False if the newest version was identical."""

    version: int
    digest: str
    changed: bool


def current_version() -> ScalarSelect[int]:
    """Return a subquery for the newest version of the bound parameter *tenant*, 0 if there is none."""
    return _NEWEST.scalar_subquery()


def version_of(connection: Connection, tenant: str) -> int:
    """Return a tenant's newest version, 0 if it has none."""
    return int(_VERSION.run(connection, {"tenant": tenant}).scalar_one())


def policy_text(connection: Connection, tenant: str, version: int | None = None) -> tuple[int, str]:
    """Return a version and its text, the newest by default; 0 and "" if the tenant has none. Raises BadInput."""
    found = version_of(connection, tenant) if version is None else version
    if found == 0:
        return 0, ""
    text = _TEXT.run(connection, {"tenant": tenant, "version": found}).scalar_one_or_none()
    if text is None:
        raise BadInput(f"tenant {tenant} has no policy version {found}: `aswhom policy history {tenant}` shows them")
    return found, text


def policy_history(connection: Connection, tenant: str) -> list[Row[tuple[object, ...]]]:
    """Return every version, newest first, without its text."""
    columns = [column for column in policies.c if column.name != "document"]
    found = select(*columns).where(policies.c.tenant_id == tenant).order_by(policies.c.version.desc())
    return list(connection.execute(found))


def apply_policy(connection: Connection, tenant: str, text: str, act: Act, *, over: int | None) -> Applied:
    """Make *text* the tenant's policy: no step opens under an older version once this is committed.

    *over* is the version to be replaced; None for any. Raises BadInput if the file cannot be used, or another version
    came first.
    """
    read_policy(text)
    lock_exclusive(connection, Scope(kind=ScopeKind.TENANT, key=tenant))
    newest, before = policy_text(connection, tenant)
    digest = digest_of(text)
    if over is not None and over != newest:
        raise BadInput(
            f"tenant {tenant} is at policy version {newest}, not {over}: look at what changed, then apply again"
        )
    if newest and digest == digest_of(before):
        return Applied(version=newest, digest=digest, changed=False)
    row = {
        "tenant_id": tenant,
        "version": newest + 1,
        "sha256": digest,
        "document": text,
        "created_at": act.now,
        "made_by": act.by,
    }
    connection.execute(insert(policies).values(row))
    detail = {"version": newest + 1, "sha256": digest, "replaces": newest}
    audit.record_act(connection, "policy.applied", AsWhom(tenant=tenant), act, outcome="applied", detail=detail)
    return Applied(version=newest + 1, digest=digest, changed=True)


class Policies:
    """A cache of each tenant's newest policy. One instance serves all threads of a process."""

    def __init__(self) -> None:
        self._known: dict[str, Policy] = {}
        self._lock = threading.Lock()

    def current(self, connection: Connection, tenant: str) -> Policy:
        """Return the tenant's current policy. Raises Misconfigured if this version of Aswhom cannot read it."""
        version = version_of(connection, tenant)
        if version == 0:
            return FACTS_ALONE
        with self._lock:
            known = self._known.get(tenant)
        if known is not None and known.version == version:
            return known
        try:
            policy = read_policy(policy_text(connection, tenant, version)[1], version=version)
        except BadInput as error:
            raise Misconfigured(f"policy version {version} of tenant {tenant}: {error}") from error
        with self._lock:
            self._known[tenant] = policy
        return policy
