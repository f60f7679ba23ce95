"""Installs the npm packages that a folder's package-lock.json pins, once."""

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.servers.process import DidNotStart


def install(folder: Path) -> None:
    """Run `npm ci` in *folder*, without anybody's install scripts, unless that was done since the lock last changed."""
    with (folder / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # npm ci begins by removing what another of pytest's workers has installed
        _install(folder, hashlib.sha256(lock.read()).hexdigest())


def _install(folder: Path, lock: str) -> None:
    stamp = folder / "node_modules" / ".installed"
    if stamp.exists() and stamp.read_text() == lock:
        return
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise DidNotStart(f"{program} is missing: some peers of the tests come from npm (Node 20 or later)")
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise DidNotStart(f"npm ci in {folder} failed:\n{done.stdout}{done.stderr}")
    stamp.write_text(lock)


if __name__ == "__main__":
    for peer in ("oidc", "axe", "mcp"):
        install(Path(__file__).parents[1] / "peers" / peer)
