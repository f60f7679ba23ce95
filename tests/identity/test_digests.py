"""Digests that are stored stay what they were: another would be another request, or another approval."""

from __future__ import annotations

from identity.digests import json_digest
from pipeline.action import hash_of
from pipeline.agents_api.callers import Keyed

DOCUMENT = {"title": "Grüße", "amount": 4, "more": [None, {"b": True, "a": 1.5}]}
DIGEST = "9a4379041ee3bbfc74d6f595e67daf8e24e6994b67300c6000268ef2d5419682"


def test_a_document_has_the_digest_that_it_had_when_it_was_stored() -> None:
    assert json_digest(DOCUMENT) == json_digest(dict(reversed(DOCUMENT.items()))) == DIGEST
    assert Keyed(key="k", document=DOCUMENT).request_hash == DIGEST


def test_so_has_an_action_with_its_parameters() -> None:
    assert hash_of("github.Say", DOCUMENT) == "29183c2b4ee78ff53ac01fce6ac2a6372f93ae722bb9d653421348ecfffbafcd"
