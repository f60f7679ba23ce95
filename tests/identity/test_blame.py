"""What a refusal is held against, as a table: the order of its rules decides whether a connection pauses."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

import pytest

from identity.connections.secrets import CLIENT_SECRET, SealedSecret
from identity.keys.vault import Binding
from identity.model import Credential
from identity.oauth.answers import UNNAMED_401, ClientRefused, Withheld
from identity.providers import PROFILES
from identity.refresh.blame import Blame, Refusal, blame
from identity.refresh.requests import AssertionRefused

NOW = datetime(2026, 11, 30, tzinfo=UTC)
OF_PERSON, SIGNED, OF_CLIENT = Credential.AUTHORIZATION_CODE, Credential.JWT_BEARER, Credential.CLIENT_CREDENTIALS
INVALID, UNAUTHORIZED, NAMELESS = (
    ClientRefused(code=code) for code in ("invalid_client", "unauthorized_client", UNNAMED_401)
)


def secret(id: str, *, refused: bool = False) -> SealedSecret:
    return SealedSecret(
        id=id,
        connection="gh",
        name=CLIENT_SECRET,
        binding=Binding(tenant="", record="gh", provider="github", field=CLIENT_SECRET),
        sealed=b"",
        created_at=NOW,
        used_from=NOW,
        refused_at=NOW if refused else None,
    )


ONE, TWO = (secret("a"),), (secret("a"), secret("b"))
KNOWN = (secret("a", refused=True), secret("b"))  # the fresh one was refused without a name just before


@pytest.mark.parametrize(
    ("refusal", "credential", "secrets", "refused", "said"),
    [
        (INVALID, OF_PERSON, (), (), Blame.CLIENT),
        (INVALID, OF_PERSON, ONE, (), Blame.CLIENT),
        (INVALID, OF_PERSON, TWO, (), Blame.SECRET),
        (INVALID, OF_PERSON, KNOWN, (), Blame.CLIENT),
        (INVALID, OF_PERSON, KNOWN, ("b",), Blame.SUSPECT),
        (INVALID, SIGNED, KNOWN, ("b",), Blame.ASSERTION),
        (NAMELESS, OF_PERSON, ONE, (), Blame.SUSPECT),
        (NAMELESS, OF_CLIENT, TWO, (), Blame.SUSPECT),
        (UNAUTHORIZED, OF_PERSON, ONE, (), Blame.ACCOUNT),
        (UNAUTHORIZED, OF_PERSON, TWO, (), Blame.ACCOUNT),
        (UNAUTHORIZED, OF_CLIENT, ONE, (), Blame.CLIENT),
        (ClientRefused(code="redirect_uri_mismatch"), OF_PERSON, TWO, (), Blame.CLIENT),
        (ClientRefused(code="redirect_uri_mismatch"), OF_PERSON, KNOWN, ("b",), Blame.CLIENT),
        (AssertionRefused(code="invalid_grant"), SIGNED, TWO, (), Blame.ASSERTION),
        (Withheld(code="invalid_scope", person=False), OF_PERSON, TWO, (), Blame.ACCOUNT),
        (Withheld(code="login_required", person=True), OF_PERSON, TWO, (), Blame.PERSON),
    ],
)
def test_a_refusal_is_held_against_what_it_may_be_the_fault_of(
    refusal: Refusal,
    credential: Credential,
    secrets: tuple[SealedSecret, ...],
    refused: Collection[str],
    said: Blame,
) -> None:
    profile = PROFILES["github"]
    assert blame(refusal, credential=credential, profile=profile, secrets=secrets, refused_keys=refused) is said


@pytest.mark.parametrize("refusal", [INVALID, UNAUTHORIZED, NAMELESS, AssertionRefused(code="invalid_grant")])
def test_a_refusal_of_what_may_have_been_another_secret_is_held_against_nothing(refusal: Refusal) -> None:
    said = blame(refusal, credential=OF_PERSON, profile=PROFILES["github"], secrets=TWO, unsure=True)
    assert said is Blame.NOBODY_YET


@pytest.mark.parametrize("person", [True, False])
def test_what_is_withheld_is_withheld_whichever_secret_was_shown(person: bool) -> None:
    refusal = Withheld(code="access_denied", person=person)
    said = blame(refusal, credential=OF_PERSON, profile=PROFILES["github"], secrets=TWO, unsure=True)
    assert said is (Blame.PERSON if person else Blame.ACCOUNT)
