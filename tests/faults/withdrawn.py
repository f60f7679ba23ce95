"""The provider's side of a revocation: its receipt tells of each credential, and the sandbox takes none any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, select

from deploy.sandbox.auth.control import KEY_HEADER
from identity.accounts.grants import ACCESS, token_binding
from identity.http.request_names import REVOCATION_HEADER
from identity.model import Scope
from identity.tables import accounts, grants
from pipeline.revocation.declaration import under
from pipeline.revoker.inquiry import SAYS, SignalDoubt
from tests.system.rig import System

#: Of static tokens, whose issuers run in no test here.
NO_WAY = "the provider has no way to end a credential"
#: Why a provider was not asked, where nothing is left to end.
NOTHING_LEFT = frozenset(
    {
        "the provider itself said that it has ended",
        "it had expired",
        "there was no token to end",  # of a refresh that the provider refused, as the consent had ended there
    }
)


def held_under(system: System, scope: Scope) -> Sequence[Row[Any]]:
    """The access tokens that a scope's accounts hold now, sealed."""
    of_account = (accounts.c.id, accounts.c.tenant_id, accounts.c.provider)
    held = select(*of_account, grants.c.generation, grants.c.access_sealed).join(grants)
    return system.rows(held.where(under(scope, accounts), grants.c.access_sealed.is_not(None)))


def prove_withdrawn(system: System, receipt: Mapping[str, Any], held: Sequence[Row[Any]]) -> None:
    """What was *held* just before the revocation has ended at its provider, unless a replayed signal was followed."""
    told = receipt["provider"]["accounts"]
    assert {row.id for row in held} <= {one["account"] for one in told}, "a token that the receipt does not tell of"
    is_replay = receipt["doubt"] == SignalDoubt.ALIVE
    reasons = {SAYS[SignalDoubt.ALIVE]} if is_replay else {NO_WAY, *NOTHING_LEFT}
    for one in told:
        assert one["answer"] == "done" or (one["answer"] == "not_asked" and one["reason"] in reasons), one
    if not is_replay:
        # A refresh may have replaced one before the revocation was accepted.
        ended = {(one["account"], one["generation"]) for one in told if one["reason"] != NO_WAY}
        asked = [row for row in held if (row.id, row.generation) in ended]
        living = [row.id for row in asked if _lives(system, row, receipt["revocation"])]
        assert not living, "they live on at their provider"


def _lives(system: System, row: Row[Any], revocation: str) -> bool:
    """True if its provider still knows the token. Requests are the revocation's: each in the logs has to be somebody's.

    Rounds let access tokens expire there early, so Linear is asked whether the whole grant has ended.
    """
    binding = token_binding(row.tenant_id, row.id, row.provider, ACCESS, row.generation)
    token = system.runtime.vault.open(row.access_sealed, binding).reveal()
    headers = {"Authorization": f"Bearer {token}", REVOCATION_HEADER: revocation}
    http, world = system.http, system.world
    if row.provider == "slack":
        return bool(http.post(f"{world['slack']['url']}/api/auth.test", headers=headers).json()["ok"])
    by_key: Any = {"headers": {KEY_HEADER: world["auth"]["internal_key"]}, "json": {"token": token}}
    if row.provider == "linear":
        return bool(http.post(f"{world['auth']['url']}/_sandbox/kill_credential", **by_key).json()["killed"])
    issued = http.post(f"{world['auth']['url']}/_sandbox/introspect", **by_key).json()
    if issued["known"]:
        return bool(issued["active"])
    # An installation's, which GitHub issued by itself.
    return http.get(f"{world['github']['url']}/installation/repositories", headers=headers).is_success
