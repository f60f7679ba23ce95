"""docs/providers.md is what the rows say."""

from __future__ import annotations

from deploy.provider_page import render
from identity.providers import PROFILES
from tests.docs.pages import page


def test_the_page_of_providers_is_current() -> None:
    assert page("providers.md") == render(PROFILES), "aswhom connections providers --page > docs/providers.md"
