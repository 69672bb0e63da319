"""The commands about an installation: its configuration, its health, its shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from taskbridge.cli.completion import SHELLS, complete_connections, complete_providers, script
from taskbridge.cli.options import chosen_config, with_config, with_json

if TYPE_CHECKING:
    from taskbridge.cli.screen import Screen

__all__ = ["completion", "config", "doctor", "init", "new_provider"]

_connections = click.argument("connections", nargs=-1, metavar="[CONNECTION...]", shell_complete=complete_connections)


@click.command()
@click.argument("providers", nargs=-1, metavar="[PROVIDER...]", shell_complete=complete_providers)
@click.option("--to", default="taskbridge.toml", show_default=True, metavar="PATH", help="The file to write.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
@with_json
@click.pass_obj
def init(screen: Screen, providers: tuple[str, ...], to: str, *, force: bool) -> int:
    """Write a commented configuration to begin with.

    The named providers are ready to use, once their variables are set; the others stand there as comments.
    """
    from taskbridge.cli.first_config import write_config  # noqa: PLC0415  # pydantic

    return write_config(screen, providers, to, force=force)


@click.command(name="new-provider")
@click.argument("name")
@click.option("--to", default=".", metavar="DIR", help="The folder to make it in; the current one otherwise.")
@with_json
@click.pass_obj
def new_provider(screen: Screen, name: str, to: str) -> int:
    """Write a plugin: a provider for a vendor of yours.

    A distribution taskbridge-NAME with provider, emulator and tests that pass at once. NAME is what configurations will
    say: provider = "NAME".
    """
    from taskbridge.cli.newcomer import begin_provider  # noqa: PLC0415  # pydantic

    return begin_provider(screen, name, to)


@click.group()
def config() -> None:
    """What is configured."""


@config.command()
@_connections
@click.option("--all", "everything", is_flag=True, help="Also what is not set, with its default.")
@with_json
@with_config
@click.pass_obj
def show(screen: Screen, connections: tuple[str, ...], *, everything: bool) -> int:
    """Show each setting, where its value comes from, and no secret."""
    from taskbridge.cli.shown_config import show_config  # noqa: PLC0415  # pydantic

    return show_config(screen, connections, chosen_config(), everything=everything)


@click.command()
@_connections
@click.option("--offline", is_flag=True, help="Send nothing.")
@with_json
@with_config
@click.pass_obj
def doctor(screen: Screen, connections: tuple[str, ...], *, offline: bool) -> int:
    """Look whether all is well.

    What is said can go into a bug report as it is: versions, plugins, the configuration, and for each connection
    whether the vendor takes its credential, by the cheapest call that it has. Nothing is submitted or changed, and no
    secret is shown.
    """
    from taskbridge.cli.doctor import examine  # noqa: PLC0415  # pydantic

    return examine(screen, connections, chosen_config(), offline=offline)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Show the script that completes words in a shell.

    \b
    bash  eval "$(taskbridge completion bash)"     in ~/.bashrc
    zsh   eval "$(taskbridge completion zsh)"      in ~/.zshrc
    fish  taskbridge completion fish | source      in ~/.config/fish/config.fish
    """  # noqa: D301  # click reads the control character
    return script(ctx.obj, ctx.find_root().command, shell)
