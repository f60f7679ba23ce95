"""Fields that GitHub's actions share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field


def _names_a_repository(value: str) -> str:
    # It becomes part of a path: `acme/..` must not escape /repos.
    if value.partition("/")[2] in (".", ".."):
        raise ValueError("names no repository")
    return value


Repo = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}/[A-Za-z0-9._-]{1,100}$", description="owner/name, as in acme/shop"),
    AfterValidator(_names_a_repository),
]
Number = Annotated[int, Field(ge=1, description="of the issue or pull request in its repository: 42 of #42")]
Title = Annotated[str, Field(min_length=1, max_length=256, description="one line of plain text")]
# GitHub accepts 65,536 characters: the rest is for the marker.
Body = Annotated[str, Field(min_length=1, max_length=65_000, description="GitHub's Markdown")]
Label = Annotated[str, Field(min_length=1, max_length=50)]
