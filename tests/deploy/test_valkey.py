"""The private Valkey of `aswhom up`: where its socket is, when its own folder's path is too long for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.valkey import prepare, socket_path
from identity.errors import Misconfigured


def test_a_folder_of_tmp_that_others_may_enter_is_refused_with_the_longest_path_named(tmp_path: Path) -> None:
    data_dir = tmp_path / ("x" * 100)
    folder = socket_path(data_dir).parent
    folder.mkdir(mode=0o755)
    try:
        with pytest.raises(Misconfigured, match="at most 103 bytes long"):
            prepare(data_dir)
    finally:
        folder.rmdir()
