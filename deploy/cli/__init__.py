"""The `aswhom` command line. Each command is imported only when it is called, which keeps `--help` fast."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping

import click

from deploy.cli import tree

#: Name → (modules below deploy.cli, the command's attribute in the first module, its line in `--help`). The other
#: modules add subcommands to it.
COMMANDS: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "init": (("running",), "init", "Make a data directory, keys and a ledger."),
    "up": (("running",), "up", "Run everything on this machine until Ctrl-C."),
    "demo": (("running",), "demo", "Watch the DevOps assistant at work against the sandbox."),
    "doctor": (("doctor",), "doctor", "Report what is wrong and how to fix it."),
    "db": (
        ("running", "ledger_file", "ledger_import", "ledger_wait", "restored"),
        "db",
        "The ledger: migrations, backup, integrity check.",
    ),
    "hold": (("hold",), "hold", "Pause all outgoing work."),
    "keys": (("keys",), "keys", "The installation's own keys."),
    "tenants": (("tenants", "tenant_deletion"), "tenants", "The customers that agents work for."),
    "users": (("users",), "users", "The people for whom agents act."),
    "aliases": (("tenants",), "aliases", "Links between people and their provider accounts."),
    "connections": (
        ("connections", "connection_secrets", "senders"),
        "connections",
        "Client registrations with providers.",
    ),
    "installations": (
        ("installations",),
        "installations",
        "Which tenant owns which installation of the platform's app.",
    ),
    "transmitters": (("transmitters",), "transmitters", "Services that may report revocations as security events."),
    "accounts": (
        ("accounts", "narrowing", "account_scopes", "services"),
        "accounts",
        "Connected accounts, and services' credentials.",
    ),
    "connect": (("connect",), "connect", "Connect links, and the URLs they may return to."),
    "agents": (("agents",), "agents", "The software that acts."),
    "api-keys": (("api_keys",), "api_keys", "Credentials that agents call the API with."),
    "workflows": (("workflows",), "workflows", "What agents may do, switched on per tenant."),
    "new": (("new",), "new", "Create a package for your own workflow."),
    "schedules": (("schedules",), "schedules", "Times at which workflows start by themselves."),
    "policy": (
        ("policy", "policy_risk", "policy_files"),
        "policy",
        "A tenant's rules, and the reasons for a decision.",
    ),
    "capability": (
        ("capability",),
        "capability",
        "Tokens for a single action, and the services that accept them.",
    ),
    "approvals": (("approvals",), "approvals", "Steps that wait for a person's approval."),
    "jobs": (("jobs", "job_replays", "job_resolutions"), "jobs", "What agents did, as whom, and why."),
    "tail": (("tail",), "tail", "Follow jobs as they change state."),
    "deliveries": (("deliveries",), "deliveries", "Webhook deliveries, and the jobs they start."),
    "trigger": (("trigger",), "trigger", "Send a signed delivery to the running web."),
    "revoke": (("revoke",), "revoke", "Withdraw authority immediately."),
    "revocations": (("revocations",), "revocations", "Receipts of what revocations stopped."),
    "audit": (("audit", "audit_chain"), "audit", "Who did what as whom, in a sealed chain."),
    "console": (("console",), "console", "Console roles, sessions and sign-in links."),
    "sandbox": (("sandbox", "sandbox_github"), "sandbox", "Stand-ins for providers, on this machine alone."),
    "completion": (("completion",), "completion", "Print the completion script for your shell."),
}

#: The sections of `aswhom --help`, in the order in which a new installation needs them.
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Run it": ("up", "doctor", "demo", "init", "db", "hold", "keys"),
    "Say who may act": (
        *("tenants", "users", "connections", "installations", "connect", "accounts", "aliases", "agents", "api-keys"),
        *("policy", "approvals", "capability", "console"),
    ),
    "Start work and follow it": ("workflows", "schedules", "trigger", "jobs", "tail", "deliveries"),
    "Withdraw authority, and prove it": ("revoke", "revocations", "transmitters", "audit"),
    "Build on it": ("new", "sandbox", "completion"),
}


def real(name: str) -> click.Command:
    """Import a command's modules and return the command."""
    modules, attribute, _ = COMMANDS[name]
    first, *_ = [importlib.import_module(f"deploy.cli.{module}") for module in modules]
    command: click.Command = getattr(first, attribute)
    return command


class Lazily(click.Group):
    """A click group that imports a command only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in SECTIONS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        of = tree.read().get(cmd_name)
        return real(cmd_name) if of is None else tree.outlined(cmd_name, of, lambda: real(cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        longest = max(map(len, COMMANDS))
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(longest), COMMANDS[name][2]) for name in names])


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
