"""GitHub's search syntax, as far as a search for a marker needs it."""

import re

from deploy.sandbox.github.model import Item


class Query:
    """A search of phrases and words, with `in:`, `repo:`, `is:` and `author:`."""

    def __init__(self, text: str) -> None:
        self._phrases = [phrase.lower() for phrase in re.findall(r'"([^"]+)"', text)]
        words = re.sub(r'"[^"]*"', " ", text).split()
        qualifiers = [word.partition(":") for word in words if ":" in word]
        self._phrases += [word.lower() for word in words if ":" not in word]
        self._places = {value for name, _, values in qualifiers if name == "in" for value in values.split(",")}
        self._repos = {value.lower() for name, _, value in qualifiers if name == "repo"}
        self._kinds = {value for name, _, value in qualifiers if name in ("is", "type")} & {"issue", "pr"}
        self._authors = {value.lower() for name, _, value in qualifiers if name == "author"}

    def finds(self, item: Item) -> bool:
        if self._repos and item.repository.full_name.lower() not in self._repos:
            return False
        if self._kinds and ("pr" if item.is_pull else "issue") not in self._kinds:
            return False
        if self._authors and item.author.login.lower() not in self._authors:
            return False
        places = self._places or {"title", "body", "comments"}
        texts = [item.title] if "title" in places else []
        texts += [item.body or ""] if "body" in places else []
        texts += [comment.body for comment in item.comments] if "comments" in places else []
        return all(any(phrase in text.lower() for text in texts) for phrase in self._phrases)
