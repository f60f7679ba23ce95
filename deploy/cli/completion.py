"""`completion`: shell completion of commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_ASWHOM_COMPLETE"  # the variable through which click's completion script asks


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="SHELL")
def completion(shell: str) -> None:
    """Print the completion script for SHELL. To load it: `eval "$(aswhom completion bash)"`."""
    from deploy.cli import main

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click knows all three
    click.echo(kind(main, {}, "aswhom", _VARIABLE).source())
