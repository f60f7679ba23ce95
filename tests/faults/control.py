"""Negative controls: without its guard a test must fail.

The packages are copied to a temporary folder, one line of one file is replaced (or one each of a few), found exactly
once, and the named tests run against that copy in a process of their own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.mark import KeywordMatcher
from _pytest.mark.expression import Expression

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("deploy", "identity", "pipeline", "tasks", "webhooks", "tests")
COLLECTED = pytest.StashKey[list[pytest.Item]]()  # the tests of this session, with those that are not to run
BROKEN = re.compile(r"\b(?:ImportError|ModuleNotFoundError|NameError|SyntaxError): .*")  # the mutant does not even run
FAILED = 1  # pytest's exit code when tests ran and some failed; anything else is no answer


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a guard, and what stands there when it is gone."""

    file: str
    guard: str  # without its indentation
    without: str

    def place(self) -> int:
        """The line's index. Raises AssertionError unless it is there exactly once."""
        lines = (ROOT / self.file).read_text().splitlines()
        found = [number for number, line in enumerate(lines) if line.strip() == self.guard]
        assert len(found) == 1, f"{self.file} has the line {self.guard!r} {len(found)} times: where is its guard now?"
        return found[0]

    def replace(self, folder: Path) -> None:
        """Put what stands there without it into the copy. Raises AssertionError unless the line is there once."""
        at, lines = self.place(), (folder / self.file).read_text().splitlines()
        indentation = lines[at][: -len(lines[at].lstrip())]
        lines[at] = indentation + self.without
        (folder / self.file).write_text("\n".join(lines) + "\n")


@dataclass(frozen=True, kw_only=True)
class Control:
    """A guard, what stands there when it is gone, and the test that must notice."""

    name: str
    file: str
    guard: str  # one line, without its indentation
    without: str
    test: str  # FILE::EXPRESSION; the expression goes to pytest's -k
    also: tuple[Line, ...] = ()  # in other files, where one line is not the whole guard
    says: str = ""  # part of what the test must say, where it might fail of something else
    timeout: float = 150  # seconds

    def copy(self, to: Path) -> None:
        """The packages without the guard. Raises AssertionError unless each line is there exactly once."""
        for package in PACKAGES:
            # Compiled modules come along and hold, as times are copied too: the changed file alone is compiled anew.
            shutil.copytree(ROOT / package, to / package, ignore=shutil.ignore_patterns("node_modules"))
        for file in ("pyproject.toml", "Procfile"):
            shutil.copy(ROOT / file, to / file)
        (to / "docs").symlink_to(ROOT / "docs")  # where the grants of PostgreSQL's roles are, by which tests run
        for peer in (ROOT / "tests" / "peers").iterdir():
            if (peer / "node_modules").is_dir():
                (to / "tests" / "peers" / peer.name / "node_modules").symlink_to(peer / "node_modules")
        for line in self._lines():
            line.replace(to)

    def place(self) -> None:
        """Raises AssertionError unless each of its lines is there exactly once."""
        for line in self._lines():
            line.place()

    def _lines(self) -> tuple[Line, ...]:
        return (Line(file=self.file, guard=self.guard, without=self.without), *self.also)

    def imports(self) -> list[tuple[str, str]]:
        """The modules that it imports where its guard is gone, each with one name that it takes from there."""
        found = [one for line in self._lines() for one in re.findall(r"\bfrom ([\w.]+) import ([\w, ]+)", line.without)]
        return [(module, name.split()[0]) for module, names in found for name in names.split(",")]

    @property
    def tests(self) -> Path:
        """The file of the test that must notice."""
        return ROOT / self.test.partition("::")[0]

    def selects(self, *of_file: KeywordMatcher) -> bool:
        """True if `run` would run any of these tests of its file."""
        names = Expression.compile(self.test.partition("::")[2])
        return any(map(names.evaluate, of_file))

    def run(self, folder: Path) -> tuple[int, str]:
        """pytest's exit code and what it said, with the copy first on the path."""
        file, _, names = self.test.partition("::")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "slow or not slow", file]
        if names:
            command += ["-k", names]
        # Else it would tidy up after other runs at its end, which takes minutes where they left much.
        command += ["--basetemp", str(folder / "basetemp")]
        # Without its guard a test may wait until it is cut.
        command += ["--timeout", "120"]
        # What cannot come about any more is waited for less long.
        waits = {"TESTS_WAIT": "45"}
        # It only has to fail: no smallest example is looked for, which takes minutes.
        told = {"TESTS_CONTROL": "1"}
        environment = {**os.environ, **waits, **told, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        ran = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=self.timeout, check=False
        )
        return ran.returncode, ran.stdout + ran.stderr

    def is_noticed(self, folder: Path) -> None:
        """Run the test without the guard: it must fail, and not just break on its way there."""
        self.copy(folder)
        self.judge(*self.run(folder))

    def judge(self, code: int, said: str) -> None:
        """Raise AssertionError unless this is how a test fails that notices what is gone."""
        assert code == FAILED, said
        assert " failed" in said.strip().splitlines()[-1], said
        assert self.says in said, said
        broken = BROKEN.findall(said)
        assert not broken, f"what stands in the guard's place does not run: {broken[0]}\n{said}"
