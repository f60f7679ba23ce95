"""The `aswhom` command line. Each command is imported only when it is called, which keeps `--help` fast."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import NamedTuple

import click

from deploy.cli import tree


class Listed(NamedTuple):
    """A command as listed in `aswhom --help`."""

    line: str
    modules: tuple[str, ...]  # below deploy.cli; the first has the command, the others add subcommands to it


#: The sections of `aswhom --help`, in the order in which a new installation needs them.
SECTIONS: Mapping[str, Mapping[str, Listed]] = {
    "Run it": {
        "up": Listed("Run everything on this machine until Ctrl-C.", ("running",)),
        "doctor": Listed("Report what is wrong and how to fix it.", ("doctor",)),
        "demo": Listed("Watch the DevOps assistant at work against the sandbox.", ("running",)),
        "init": Listed("Make a data directory, keys and a ledger.", ("running",)),
        "db": Listed(
            "The ledger: migrations, backup, integrity check.",
            ("running", "ledger_file", "ledger_import", "ledger_wait", "restored"),
        ),
        "hold": Listed("Pause all outgoing work.", ("hold",)),
        "keys": Listed("The installation's own keys.", ("keys",)),
    },
    "Say who may act": {
        "tenants": Listed("The customers that agents work for.", ("tenants", "tenant_deletion")),
        "users": Listed("The people for whom agents act.", ("users",)),
        "connections": Listed("Client registrations with providers.", ("connections", "connection_secrets", "senders")),
        "installations": Listed("Which tenant owns which installation of the platform's app.", ("installations",)),
        "connect": Listed("Connect links, and the URLs they may return to.", ("connect",)),
        "accounts": Listed(
            "Connected accounts, and services' credentials.", ("accounts", "narrowing", "account_scopes", "services")
        ),
        "aliases": Listed("Links between people and their provider accounts.", ("tenants",)),
        "agents": Listed("The software that acts.", ("agents",)),
        "api-keys": Listed("Credentials that agents call the API with.", ("api_keys",)),
        "policy": Listed(
            "A tenant's rules, and the reasons for a decision.", ("policy", "policy_risk", "policy_files")
        ),
        "approvals": Listed("Steps that wait for a person's approval.", ("approvals",)),
        "capability": Listed("Tokens for a single action, and the services that accept them.", ("capability",)),
        "console": Listed("Console roles, sessions and sign-in links.", ("console",)),
    },
    "Start work and follow it": {
        "workflows": Listed("What agents may do, switched on per tenant.", ("workflows",)),
        "schedules": Listed("Times at which workflows start by themselves.", ("schedules",)),
        "trigger": Listed("Send a signed delivery to the running web.", ("trigger",)),
        "jobs": Listed("What agents did, as whom, and why.", ("jobs", "job_replays", "job_resolutions")),
        "tail": Listed("Follow jobs as they change state.", ("tail",)),
        "deliveries": Listed("Webhook deliveries, and the jobs they start.", ("deliveries",)),
    },
    "Withdraw authority, and prove it": {
        "revoke": Listed("Withdraw authority immediately.", ("revoke",)),
        "revocations": Listed("Receipts of what revocations stopped.", ("revocations",)),
        "transmitters": Listed("Services that may report revocations as security events.", ("transmitters",)),
        "audit": Listed("Who did what as whom, in a sealed chain.", ("audit", "audit_chain")),
    },
    "Build on it": {
        "new": Listed("Create a package for your own workflow.", ("new",)),
        "sandbox": Listed("Stand-ins for providers, on this machine alone.", ("sandbox", "sandbox_github")),
        "completion": Listed("Print the completion script for your shell.", ("completion",)),
    },
}
COMMANDS: Mapping[str, Listed] = {name: one for names in SECTIONS.values() for name, one in names.items()}


def real(name: str) -> click.Command:
    """Import a command's modules and return the command."""
    first, *_ = [importlib.import_module(f"deploy.cli.{module}") for module in COMMANDS[name].modules]
    command: click.Command = getattr(first, name.replace("-", "_"))
    return command


class Lazily(click.Group):
    """A click group that imports a command only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        of = tree.read().get(cmd_name)
        return real(cmd_name) if of is None else tree.outlined(cmd_name, of, lambda: real(cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        longest = max(map(len, COMMANDS))
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(longest), one.line) for name, one in names.items()])


def _version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from deploy.build import told  # imported here to keep `--help` fast

        click.echo(f"aswhom, version {told()}")
        context.exit()


@click.group(cls=Lazily, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Print the version and build."
)
def main() -> None:
    """Run AI agents' work against customers' APIs, and decide step by step as whom each call is made.

    Settings are environment variables that begin with ASWHOM_. Every command except `up` and `completion` takes --json.
    Exit codes: 0 done, 1 not done or a problem was found, 2 usage error.
    """
    os.umask(0o077)  # other users may be able to enter the data directory
