"""docs/security.md names every secret that is stored or set."""

from __future__ import annotations

import typing

from pydantic import SecretStr

from deploy.settings import Settings
from deploy.variables import PREFIX
from pipeline.migrations.declared import metadata
from tests.docs.pages import page


def test_every_sealed_column_is_named() -> None:
    text = page("security.md")
    sealed = {
        (table.name, column.name)
        for table in metadata.tables.values()
        for column in table.columns
        if column.name.endswith("_sealed") or (table.name, column.name) == ("connection_secrets", "sealed")
    }
    assert len(sealed) > 8
    assert [f"{table}.{column}" for table, column in sorted(sealed) if table not in text or column not in text] == []


def test_every_secret_setting_is_named() -> None:
    text = page("security.md")
    secret = [name for name, field in Settings.model_fields.items() if _holds_a_secret(field.annotation)]
    assert len(secret) > 4
    assert [name for name in secret if f"`{PREFIX}{name.upper()}`" not in text] == []


def _holds_a_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(_holds_a_secret(inner) for inner in typing.get_args(annotation))
