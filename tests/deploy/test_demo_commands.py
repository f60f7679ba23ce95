"""The demo's commands: real ones, of which the one that fails is quoted with what it said."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.demo.commands import Commands
from identity.errors import Unavailable


def test_a_command_that_does_not_do_what_it_should_is_quoted_with_what_it_said(tmp_path: Path) -> None:
    commands = Commands(tmp_path, left=lambda: 60.0)
    with pytest.raises(Unavailable, match=r"`aswhom revoke user acme\.ada .*--yes.*` ended with 1: there is no ledger"):
        commands.revoke("user", "acme.ada", reason="she left")


def test_a_command_ends_with_the_time_of_the_demo(tmp_path: Path) -> None:
    commands = Commands(tmp_path, left=lambda: 0.01)
    with pytest.raises(Unavailable, match="time was over before `aswhom keys public` had ended"):
        commands.publish_key()
