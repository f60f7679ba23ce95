"""`aswhom sandbox github`: what it keeps in its directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from deploy.cli import sandbox_github

ADDRESSES = ("http://127.0.0.1:8080", 8701, 8702)


def test_a_first_start_that_is_killed_while_it_writes_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fdopen = os.fdopen

    def fdopen_of_a_dying_process(*words: Any, **options: Any) -> Any:
        file = fdopen(*words, **options)
        write = file.write

        def write_half(text: str) -> None:
            write(text[: len(text) // 2])
            raise KeyboardInterrupt

        file.write = write_half
        return file

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdopen", fdopen_of_a_dying_process)
        with pytest.raises(KeyboardInterrupt):
            sandbox_github._world(tmp_path, *ADDRESSES)
    world = sandbox_github._world(tmp_path, *ADDRESSES)
    assert sandbox_github._world(tmp_path, *ADDRESSES) == world
    files = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    secret = ("app.pem", "client-id.txt", "client-secret.txt", "webhook-secret.txt", "world.json")
    assert files == dict.fromkeys(secret, 0o600)
