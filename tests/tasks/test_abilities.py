"""What people are told that agents may do as them reads as a sentence, and every scope has words."""

from __future__ import annotations

import re
from typing import Any

import pytest

from identity.model import Effect
from identity.providers.words import provider_name, scope_in_words
from pipeline.accounts.abilities import in_words
from pipeline.action import Action
from tasks.actions import github, linear, slack

ACTIONS: list[type[Action[Any]]] = [
    found
    for module in (github, linear, slack)
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, Action) and hasattr(found, "facts")
]


def test_there_are_actions_to_look_at() -> None:
    assert {github.Comment, linear.CreateIssue, slack.PostMessage} <= set(ACTIONS)
    assert in_words(github.Comment) == "Comment on an issue or pull request"
    assert in_words(github.ListPulls) == "List a repository's pull requests"
    assert github.Comment.facts.effect is Effect.WRITE


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.action_name())
def test_an_action_is_a_short_clause_and_its_scopes_have_words(action: type[Action[Any]]) -> None:
    assert re.fullmatch(r"[A-Z][a-z]+ [^`_]{4,60}", in_words(action)), in_words(action)
    provider = action.facts.provider
    assert provider_name(provider) != provider
    for scope in action.facts.scopes:
        assert scope_in_words(provider, scope), scope
