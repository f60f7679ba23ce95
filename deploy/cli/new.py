"""`new`: starts a package for your own workflow."""

from __future__ import annotations

from pathlib import Path

import click

from deploy import scaffold
from deploy.cli.command import command
from deploy.cli.output import Output
from deploy.installation import Installation


@click.group()
def new() -> None:
    """Create a package for your own workflow."""


@command(new)
@click.argument("name")
@click.option("--directory", type=click.Path(path_type=Path), help="A new folder.  [default: NAME]")
def workflow(at: Installation, out: Output, name: str, directory: Path | None) -> None:
    """Write a package with a workflow, its entry point, and a test against the sandbox."""
    folder = directory or Path(name)
    written = scaffold.write(name, folder, workflows=at.workflows)
    out.done(
        f"{folder} holds the workflow {name}. Next: `pip install -e {folder} 'graphql-core>=3.3,<4' pytest`, then "
        f"`pytest {folder}`",
        {"name": name, "files": [str(path) for path in written]},
    )
