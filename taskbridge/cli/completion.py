"""Completion for shells: the script that a shell reads once, and what it is told while words are typed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from taskbridge.cli.codes import DONE

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

    from taskbridge.cli.screen import Screen

__all__ = [
    "SHELLS",
    "VARIABLE",
    "answer_shell",
    "complete_connections",
    "complete_providers",
    "complete_refs",
    "script",
]

SHELLS: Final = ("bash", "fish", "zsh")
VARIABLE: Final = "_TASKBRIDGE_COMPLETE"  # by which a shell's script asks


def script(screen: Screen, app: click.Command, shell: str) -> int:
    """Show the script for a shell; the exit code."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415  # only for shells

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  # click has all of SHELLS
    # Not its source(): that asks bash for its version, and this may run where there is none.
    complete = kind(app, {}, "taskbridge", VARIABLE)
    screen.line(complete.source_template % complete.source_vars())
    return DONE


def answer_shell(app: click.Command) -> int | None:
    """Answer a shell that asks how to go on; the exit code, or None where none asks."""
    instruction = os.environ.get(VARIABLE)
    if not instruction:
        return None
    from click.shell_completion import shell_complete  # noqa: PLC0415  # only for shells

    return shell_complete(app, {}, "taskbridge", VARIABLE, instruction)


def complete_refs(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Connections, as refs begin."""
    return _items([f"{name}:" for name in _connections()], incomplete, "nospace")


def complete_connections(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of connections."""
    return _items(_connections(), incomplete)


def complete_providers(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of installed providers."""
    from taskbridge._config.registry import provider_names  # noqa: PLC0415  # only for shells

    return _items(provider_names(), incomplete)


def _items(words: list[str], incomplete: str, kind: str = "plain") -> list[CompletionItem]:
    from click.shell_completion import CompletionItem  # noqa: PLC0415  # only for shells

    return [CompletionItem(word, type=kind) for word in words if word.startswith(incomplete)]


def _connections() -> list[str]:
    from taskbridge._config.files import load_config  # noqa: PLC0415  # only for shells
    from taskbridge.errors import ConfigError  # noqa: PLC0415  # only for shells

    try:
        return list(load_config().connections)
    except ConfigError:
        return []  # a shell has no place for what is wrong
