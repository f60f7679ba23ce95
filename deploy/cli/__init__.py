"""The `aswhom` command. Each of its commands is imported when it is called, so `--help` answers at once."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping

import click

from deploy.cli import tree

#: Name → (modules below deploy.cli, the command in the first, what the list says of it). The others add to it.
COMMANDS: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "init": (("running",), "init", "Make a data directory, keys and a ledger."),
    "up": (("running",), "up", "Run everything on this machine until Ctrl-C."),
    "demo": (("running",), "demo", "Watch the DevOps assistant at work against the sandbox."),
    "doctor": (("doctor",), "doctor", "Say what is wrong, and what to do."),
    "db": (
        ("running", "ledger_file", "ledger_wait", "restored"),
        "db",
        "The ledger: its tables, a copy of it, and whether it is whole.",
    ),
    "hold": (("hold",), "hold", "Let nothing go out for a while."),
    "keys": (("keys",), "keys", "The installation's own keys."),
    "tenants": (("tenants", "tenant_deletion"), "tenants", "Whose work is done."),
    "aliases": (("tenants",), "aliases", "Who people are at providers."),
    "connections": (
        ("connections", "connection_secrets", "senders"),
        "connections",
        "Client registrations with providers.",
    ),
    "installations": (("installations",), "installations", "Whose an installation of the platform's app is."),
    "transmitters": (("transmitters",), "transmitters", "Who may tell us of revocations by security events."),
    "accounts": (
        ("accounts", "narrowing", "account_scopes", "services"),
        "accounts",
        "Connected accounts, and services' credentials.",
    ),
    "connect": (("connect",), "connect", "Links by which people connect, and where these lead back."),
    "agents": (("agents",), "agents", "The software that acts."),
    "api-keys": (("api_keys",), "api_keys", "What agents call the API with."),
    "workflows": (("workflows",), "workflows", "What agents may do for whom."),
    "new": (("new",), "new", "Begin a package with a workflow of your own."),
    "schedules": (("schedules",), "schedules", "When workflows start by themselves."),
    "policy": (("policy", "policy_risk", "policy_files"), "policy", "A tenant's rules, and why a step was decided so."),
    "capability": (("capability",), "capability", "Tokens for one action, the services that take them, and keys."),
    "approvals": (("approvals",), "approvals", "What waits for somebody's yes."),
    "jobs": (("jobs", "job_replays", "job_resolutions"), "jobs", "What was done, as whom, and why."),
    "tail": (("tail",), "tail", "Follow jobs as they move."),
    "deliveries": (("deliveries",), "deliveries", "What came in, and what it starts."),
    "trigger": (("trigger",), "trigger", "Send a signed delivery to the running web."),
    "revoke": (("revoke",), "revoke", "Withdraw authority, now."),
    "revocations": (("revocations",), "revocations", "What revocations stopped: their receipts."),
    "audit": (("audit",), "audit", "Who did what as whom, in a sealed chain."),
    "console": (("console",), "console", "Who may do what at the console, and links that sign in."),
    "sandbox": (("sandbox",), "sandbox", "A provider that misbehaves, to aim at a profile of yours."),
    "completion": (("completion",), "completion", "Print what completes commands in your shell."),
}


def real(name: str) -> click.Command:
    """The command of that name itself, imported."""
    modules, attribute, _ = COMMANDS[name]
    first, *_ = [importlib.import_module(f"deploy.cli.{module}") for module in modules]
    command: click.Command = getattr(first, attribute)
    return command


class Lazily(click.Group):
    """A group that knows its commands by name, and imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        of = tree.read().get(cmd_name)
        return real(cmd_name) if of is None else tree.outlined(cmd_name, of, lambda: real(cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, _, said) in COMMANDS.items()])


def _version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from deploy.build import told  # here, so that `--help` need not wait for it

        click.echo(f"aswhom, version {told()}")
        context.exit()


@click.group(cls=Lazily, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Which build it is."
)
def main() -> None:
    """Runs AI agents' work against customers' APIs and decides, step by step, as whom each call is made.

    Settings are variables that begin with ASWHOM_. Every command but `up` and `completion` takes --json, and all exit
    with 0 (done), 1 (not done, or a problem was found) or 2 (used wrongly).
    """
    os.umask(0o077)  # a data directory may be one that others can enter
