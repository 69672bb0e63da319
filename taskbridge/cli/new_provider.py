"""``new-provider``: write a plugin to start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from taskbridge.cli.exit_codes import DONE
from taskbridge.cli.options import with_json
from taskbridge.errors import ConfigError, InvalidInput, printable

if TYPE_CHECKING:
    from taskbridge.cli.output import Output


@click.command(name="new-provider")
@click.argument("name")
@click.option("--to", default=".", metavar="DIR", help="The folder to create it in; default: the current one.")
@with_json
@click.pass_obj
def command(output: Output, name: str, to: str) -> int:
    """Write a plugin for another vendor.

    Creates the distribution taskbridge-NAME with a provider, an emulator and tests that pass. NAME is what
    configurations will use: provider = "NAME".
    """
    from taskbridge._config.registry import providers  # noqa: PLC0415  # heavy
    from taskbridge.scaffold import new_provider  # noqa: PLC0415  # as above

    taken = frozenset(info.name for info in providers())
    try:
        folder = new_provider(name, Path(to), taken)
    except OSError as error:
        if isinstance(error, InvalidInput):
            raise
        problem = error.strerror
    else:
        if output.as_json:
            output.record({"path": str(folder), "provider": name})
            return DONE
        output.line(f"wrote {folder}: a provider for a made-up vendor, with an emulator and tests that pass")
        output.line("next:")
        output.line(f"  1. cd {folder} && pip install -e '.[test]' && python -m pytest")
        output.line("  2. replace the made-up vendor's facts with your vendor's, in the order given in README.md")
        output.line(f"  3. taskbridge providers    lists {name}, or says why it cannot be used")
        return DONE
    raise ConfigError(f"{printable(to, 300)} cannot be written: {problem}")
