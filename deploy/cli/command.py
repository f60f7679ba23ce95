"""Framework for the CLI's commands: each receives an installation and an output, and prints errors as sentences.

Exit codes: 0 done · 1 not done, or a problem was found · 2 usage error.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.cli.output import Output, Row

if TYPE_CHECKING:
    from identity.errors import AswhomError
    from identity.sql.store import CommitUnknown

DONE, PROBLEM = 0, 1


def command(
    group: click.Group, name: str | None = None, *, misconfigured: int = PROBLEM
) -> Callable[[Callable[..., int | None]], click.Command]:
    """Add a command to *group*. It is called as `run(at, out, **options)` and returns the exit code, or None for 0.

    *misconfigured* is the exit code for a fault that only the operator can fix.
    """

    def decorate(run: Callable[..., int | None]) -> click.Command:
        return group.command(name)(invocation(run, misconfigured=misconfigured))

    return decorate


def invocation(run: Callable[..., int | None], *, misconfigured: int = PROBLEM) -> Callable[..., None]:
    """Wrap *run* with `--data-dir` and `--json`, and turn its errors into sentences."""

    @click.option(
        "--data-dir", type=click.Path(path_type=Path), help="The installation's directory.  [default: .aswhom]"
    )
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    @functools.wraps(run)
    def invoke(*, data_dir: Path | None, as_json: bool, **options: Any) -> None:
        # Imported here to keep `--help` fast.
        from deploy.installation import Installation
        from identity.errors import AswhomError, Misconfigured
        from identity.sql.store import CommitUnknown

        out = Output(as_json=as_json)
        try:
            with Installation.at(data_dir=data_dir) as at:
                at.note = out.note
                code = run(at, out, **options)
        except (AswhomError, CommitUnknown) as error:
            code = tell(out, error)
            if isinstance(error, Misconfigured):
                code = misconfigured
        sys.exit(code or DONE)

    return invoke


def tell(
    out: Output, error: AswhomError | CommitUnknown, *, next_step: str | None = None, done: Sequence[Row] = ()
) -> int:
    """Report an error and the next step, as a sentence or as the JSON document. Return the exit code.

    *done*: the part done before the error, for the document.
    """
    from identity.sql.store import CommitUnknown

    said = str(error)
    if isinstance(error, CommitUnknown):
        said = f"it is not certain whether this was done ({error}): look before you try again"
    if out.as_json:
        more = ({"next": next_step} if next_step else {}) | ({"done": list(done)} if done else {})
        out.document({"error": type(error).__name__, "message": said} | more)
    else:
        out.note(f"aswhom: {said}" + (f". Next: {next_step}" if next_step else ""))
    return PROBLEM


def confirm(question: str, *, yes: bool) -> None:
    """Ask before an action that cannot be undone. Without a terminal, require `--yes`."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Say so with --yes.")
    click.confirm(question, abort=True, err=True)


# For commands that call `confirm`, and for lists.
YES = click.option("--yes", is_flag=True, help="Do not ask.")
LIMIT = click.option("--limit", default=50, show_default=True, type=click.IntRange(1))
MANY = click.option("--limit", default=1000, show_default=True, type=click.IntRange(1))  # for lists read by scripts

# Output that must outlive the ledger goes into a file that is either complete or absent. Shell redirection would empty
# the file before the command runs, even if the command then fails.
new_file_option = click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="A new file.  [default: standard output]"
)


def secret_option(*names: str, help: str, required: bool = False) -> Callable[[Any], Any]:
    """Return an option that takes a secret from a file, or from standard input for `-`.

    On the command line, the secret would be visible to every user of the machine in the process list.
    """

    def read(context: click.Context, parameter: click.Parameter, path: str | None) -> object:
        from identity.secret import Secret

        if path is None:
            return None
        try:
            text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise click.BadParameter(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:  # the original message would quote a byte of the secret
            raise click.BadParameter(f"{path} is not text: a key has to be in PEM, not in PKCS #12 or DER") from None
        if not text.strip():
            raise click.BadParameter(f"{path} is empty")
        return Secret(text.strip())

    return click.option(*names, callback=read, metavar="FILE", required=required, help=f"{help} '-': standard input.")


class _Moment(click.ParamType[datetime]):
    """A point in time with its zone (`2026-12-01T08:00Z`), a UTC day (`2026-12-01`), or an offset from now (`+36h`)."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        if ahead := re.fullmatch(r"\+([0-9]{1,5})([mhd])", value):
            unit = {"m": "minutes", "h": "hours", "d": "days"}[ahead[2]]
            return datetime.now(UTC) + timedelta(**{unit: int(ahead[1])})
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            value = f"{value}T00:00Z"
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            at = None
        if at is None or at.tzinfo is None:
            self.fail(
                "give a time with its zone, such as 2026-12-01T08:00Z, a day (UTC), such as 2026-12-01, or an offset "
                "from now, such as +36h"
            )
        return at


MOMENT = _Moment()


def names(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Split `a,b,c`, without repetitions.

    Raise BadParameter for unprintable input, such as half a multi-byte character from the shell.
    """
    if value is not None and not value.isprintable():
        raise click.BadParameter(f"{value!r} has what cannot be printed")
    if value is None:
        return None
    return tuple(dict.fromkeys(filter(None, (part.strip() for part in value.split(",")))))


def pairs(given: tuple[str, ...], *, option: str = "--config") -> dict[str, str]:
    """Parse NAME=VALUE arguments of *option* into a mapping. Raise BadParameter."""
    found = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint=option)
        found[name] = value
    return found


def in_full(tenant: str, name: str) -> str:
    """Return the full id of a tenant's user or agent: both `ada` and `acme.ada` become `acme.ada`."""
    return name if name.startswith(f"{tenant}.") else f"{tenant}.{name}"


def json_file(context: click.Context, parameter: click.Parameter, path: str | None) -> object:
    """Parse the JSON document in a file, or in standard input for `-`."""
    import json

    if path is None:
        return None
    try:
        return json.loads(sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise click.BadParameter(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise click.BadParameter(f"{path} is not JSON: {error}") from error
