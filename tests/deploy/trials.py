"""Trials of workflows that lie outside of this repository."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.trial import Trial


@contextmanager
def trial_of(folder: Path, modules: Mapping[str, str]) -> Iterator[Trial]:
    """A trial of these modules alone, whose text is written into *folder*."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASWHOM_WORKFLOWS", ",".join(modules))
        patch.setenv("ASWHOM_WORKFLOWS_DIR", str(folder))
        patch.setattr(sys, "path", [*sys.path])
        try:
            with Trial(folder) as made:
                yield made
        finally:
            for name in modules:
                sys.modules.pop(name, None)  # one that could not be imported is not there
