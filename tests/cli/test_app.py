"""The command group: help, exit codes, and what start-up imports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import click
import pytest

import taskbridge as tb
from taskbridge._config.registry import distribution_name
from taskbridge.cli.app import COMMANDS, app
from taskbridge.cli.exit_codes import MEANINGS, code_of

Run = Callable[..., CompletedProcess[str]]

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def python(code: str) -> CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)


def test_the_help_fits_80_columns() -> None:
    blocks = PAGE.read_text(encoding="utf-8").split("```text\n")[1:]  # tests/docs compares it with the commands

    # The program's own, and those of `config show`; `store init`, `upgrade`, `check`, `adopt` and `prune`; and
    # `webhooks list`, `add` and `remove`.
    assert len(blocks) == 1 + len(COMMANDS) + 9
    assert max(len(line) for block in blocks for line in block.partition("```")[0].splitlines()) <= 80


def test_no_option_takes_a_key() -> None:
    context = click.Context(app)
    commands = [app.get_command(context, name) for name in app.list_commands(context)]
    options = {name for command in [app, *commands] if command for param in command.params for name in param.opts}

    assert len(commands) == len(set(COMMANDS)) == 30
    assert list(COMMANDS) == sorted(COMMANDS)
    assert options == {
        "--version", "--config", "--json", "--timeout", "--host", "--port", "--speed", "--to", "--force", "--offline",
        "refs", "ref", "names", "name", "connections", "providers", "shell", "operation", "documents", "--connection",
        "-o", "--option", "-s", "--set", "--external-id", "--callback-url", "--name", "connection", "--status",
        "--limit", "--filter",
        "--destructive", "words", "--files-from", "--max-in-flight", "--store", "--resume", "--resubmit-uncertain",
        "--settle", "--max-bytes", "--for", "--once", "--requests", "old", "new", "--operation", "token",
        "--max-cost", "--dry-run", "--from", "--into",
        "--http", "--trust-proxy", "--host-name", "--token-file", "--deliver", "--webhooks", "--no-work", "--meta",
        "--lock-url", "--consumer", "--follow",
    }  # fmt: skip


def test_every_error_has_an_exit_code_of_the_table() -> None:
    kinds: list[type[tb.TaskbridgeError]] = [
        getattr(tb.errors, name) for name in tb.errors.__all__ if name != "printable"
    ]
    codes = {kind: code_of(kind.__new__(kind)) for kind in kinds if kind is not tb.WaitTimeout}

    assert len(codes) > 25
    assert {*codes.values(), 3} == {1, 2, 3, 4, 5} < set(MEANINGS)
    assert codes[tb.QuotaExceeded] == codes[tb.PermissionDenied] == codes[tb.RateLimited] == 4
    assert codes[tb.ServerError] == codes[tb.MalformedResponse] == codes[tb.TlsError] == 5


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (None, 3),
        (tb.RateLimited("too many requests"), 3),
        (tb.ConnectFailed("connection refused"), 5),
        (tb.ServerError("down"), 5),
    ],
)
def test_a_wait_that_timed_out_while_the_vendor_was_unreachable_is_5(
    last: tb.TaskbridgeError | None, code: int
) -> None:
    assert code_of(tb.WaitTimeout("stopped waiting", last_error=last)) == code


def test_the_version_imports_little(run: Run) -> None:
    done = python(
        "import sys; from taskbridge.cli import main; code = main(['--version']);"
        "heavy = {'rich', 'pydantic', 'requests', 'starlette', 'taskbridge.client'} & set(sys.modules);"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, f"taskbridge {tb.__version__}\n", "")
    assert run("--version").stdout == done.stdout


@pytest.mark.parametrize("typed", ["", "do", "get s", "run --re", "submit --connection cl"])
def test_completing_a_word_imports_little(typed: str) -> None:
    done = python(
        "import os, sys; from taskbridge.cli import main;"
        f"os.environ.update(_TASKBRIDGE_COMPLETE='bash_complete', COMP_WORDS='taskbridge {typed}', COMP_CWORD='1');"
        "code = main([]);"
        "heavy = {'rich', 'requests', 'starlette', 'taskbridge.client'} & set(sys.modules);"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_the_help_imports_no_library() -> None:
    done = python(
        "import sys; from taskbridge.cli import main; code = main(['--help']);"
        "heavy = {'rich', 'pydantic', 'requests', 'starlette', 'taskbridge.client'} & set(sys.modules);"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_command_names_the_nearest_one(run: Run) -> None:
    done = run("wiat")

    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'wiat'; did you mean 'wait'?" in done.stderr


def test_a_missing_extra_is_named() -> None:
    done = python("import sys; sys.modules['click'] = None; from taskbridge.cli import main; sys.exit(main(['get']))")

    assert done.returncode == 2
    hint = f"pip install '{distribution_name()}[cli]'"
    assert done.stderr == f"taskbridge: the command line needs click; install it with: {hint}\n"


def test_a_live_table_without_rich_is_an_error(config: Path) -> None:
    done = python(
        "import sys; sys.modules['rich'] = None; from taskbridge.cli import main, output;"
        "output.is_live = lambda: True;"
        f"sys.exit(main(['wait', '--config', {str(config)!r}, 'scan-documents:task_euyrvozb9302uwhq']))"
    )

    assert done.returncode == 2
    assert done.stderr.startswith("taskbridge: the table of a wait needs rich")
    assert done.stderr.endswith(f"pip install '{distribution_name()}[cli]'\n")


def test_emulators_that_are_not_installed_are_named() -> None:
    done = python(
        "import sys; sys.modules['starlette'] = None; from taskbridge.cli import main; sys.exit(main(['demo']))"
    )

    assert done.returncode == 2
    assert f"pip install '{distribution_name()}[emulator]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_command_prints_the_help(run: Run) -> None:
    done = run()

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Usage: taskbridge ")


def test_a_bug_does_not_look_like_a_failed_task() -> None:
    done = python(
        "import sys, taskbridge._config.registry as r; r.providers = lambda: 1 / 0;"
        "from taskbridge.cli import main; sys.exit(main(['providers']))"
    )

    assert done.returncode == 70
    assert "ZeroDivisionError" in done.stderr


def test_providers_are_listed_with_their_capabilities(run: Run) -> None:
    text, lines = run("providers"), run("providers", "--json")

    assert text.returncode == lines.returncode == 0
    assert f"{distribution_name()} {tb.__version__} (built in)" in text.stdout
    assert "OAuth client credentials" in text.stdout
    assert max(map(len, text.stdout.splitlines())) <= 80
    listed = {record["name"]: record for record in map(json.loads, lines.stdout.splitlines())}
    assert set(listed) == {info.name for info in tb.providers()}
    assert listed["cloudconvert"]["long_poll"] is True
    assert listed["cloudconvert"]["problem"] is None
