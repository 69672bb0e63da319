"""``completion``: print click's completion script for a shell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import get_completion_class

from taskbridge.cli.app import COMPLETION_VARIABLE
from taskbridge.cli.exit_codes import DONE

if TYPE_CHECKING:
    from taskbridge.cli.output import Output

_SHELLS: Final = ("bash", "fish", "zsh")


@click.command(name="completion")
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> int:
    """Print the completion script of a shell.

    \b
    bash  eval "$(taskbridge completion bash)"     in ~/.bashrc
    zsh   eval "$(taskbridge completion zsh)"      in ~/.zshrc
    fish  taskbridge completion fish | source      in ~/.config/fish/config.fish
    """  # noqa: D301  # click reads the control character
    output: Output = ctx.obj
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  # click has all of _SHELLS
    complete = kind(ctx.find_root().command, {}, "taskbridge", COMPLETION_VARIABLE)
    output.line(complete.source_template % complete.source_vars())  # source() would run bash to check its version
    return DONE
