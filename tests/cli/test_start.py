"""What `taskbridge` says of itself, and what it costs to start it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import taskbridge as tb
from taskbridge.cli import help_text
from taskbridge.cli.codes import MEANINGS, code_of
from taskbridge.cli.commands import app

Run = Callable[..., CompletedProcess[str]]

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
COMMANDS = {
    "cancel", "compare", "completion", "config", "delete", "demo", "doctor", "download", "emulate", "explain", "get",
    "init", "list", "listen", "new-provider", "providers", "recover", "restart", "result", "retry", "run", "submit",
    "wait",
}  # fmt: skip


def python(code: str) -> CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)


def test_the_page_of_the_command_line_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == help_text(), (
        "the commands have changed; run: python -m taskbridge.cli.reference > docs/cli.md"
    )


def test_the_help_fits_80_columns() -> None:
    blocks = help_text().split("```text\n")[1:]

    assert len(blocks) == 2 + len(COMMANDS)  # the program's own, and that of `config show`
    assert max(len(line) for block in blocks for line in block.partition("```")[0].splitlines()) <= 80


def test_no_option_takes_a_key() -> None:
    options = {name for command in [app, *app.commands.values()] for param in command.params for name in param.opts}

    assert set(app.commands) == COMMANDS
    assert options == {
        "--version", "--config", "--json", "--timeout", "--host", "--port", "--speed", "--to", "--force", "--offline",
        "refs", "ref", "names", "name", "connections", "providers", "shell", "operation", "documents", "--connection",
        "-o", "--option", "--external-id", "--callback-url", "--name", "connection", "--status", "--limit", "--filter",
        "--destructive", "words", "--files-from", "--max-in-flight", "--ledger", "--resume", "--resubmit-uncertain",
        "--settle", "--for", "--once", "--requests", "old", "new", "--operation", "recovery_token",
    }  # fmt: skip


def test_every_error_has_an_exit_code_of_the_table() -> None:
    kinds: list[type[tb.TaskbridgeError]] = [getattr(tb.errors, name) for name in tb.errors.__all__ if name != "plain"]
    codes = {kind: code_of(kind.__new__(kind)) for kind in kinds}

    assert len(codes) > 25
    assert set(codes.values()) == {1, 2, 3, 4, 5} < set(MEANINGS)
    assert codes[tb.QuotaExceeded] == codes[tb.PermissionDenied] == codes[tb.RateLimited] == 4
    assert codes[tb.ServerError] == codes[tb.MalformedResponse] == codes[tb.TlsError] == 5


def test_the_version_needs_little(run: Run) -> None:
    seen = python(
        "import sys; from taskbridge.cli import main; code = main(['--version']);"
        "heavy = {'rich', 'pydantic', 'requests', 'starlette', 'taskbridge.client'} & set(sys.modules);"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )

    assert (seen.returncode, seen.stdout, seen.stderr) == (0, f"taskbridge {tb.__version__}\n", "")
    assert run("--version").stdout == seen.stdout


def test_a_missing_extra_is_named() -> None:
    seen = python("import sys; sys.modules['click'] = None; from taskbridge.cli import main; sys.exit(main(['get']))")

    assert seen.returncode == 2
    assert seen.stderr == ("taskbridge: the command line needs click; install it with: pip install 'taskbridge[cli]'\n")


def test_a_table_without_its_library_is_refused(config: Path) -> None:
    seen = python(
        "import sys; sys.modules['rich'] = None; from taskbridge.cli import main, screen;"
        "screen.is_live = lambda: True;"
        f"sys.exit(main(['wait', '--config', {str(config)!r}, 'scan-documents:task_euyrvozb9302uwhq']))"
    )

    assert seen.returncode == 2
    assert seen.stderr.startswith("taskbridge: the table of a wait needs rich")
    assert seen.stderr.endswith("pip install 'taskbridge[cli]'\n")


def test_emulators_that_are_not_installed_are_named() -> None:
    seen = python(
        "import sys; sys.modules['starlette'] = None; from taskbridge.cli import main; sys.exit(main(['demo']))"
    )

    assert seen.returncode == 2
    assert "pip install 'taskbridge[emulator]'" in seen.stderr
    assert seen.stderr.count("\n") == 1


def test_nothing_asked_is_answered_with_the_help(run: Run) -> None:
    seen = run()

    assert seen.returncode == 2
    assert seen.stdout == ""
    assert seen.stderr.startswith("Usage: taskbridge ")


def test_a_bug_does_not_look_like_a_failed_task() -> None:
    seen = python(
        "import sys, taskbridge._config.registry as r; r.providers = lambda: 1 / 0;"
        "from taskbridge.cli import main; sys.exit(main(['providers']))"
    )

    assert seen.returncode == 70
    assert "ZeroDivisionError" in seen.stderr


def test_providers_are_listed_with_what_they_can_do(run: Run) -> None:
    text, lines = run("providers"), run("providers", "--json")

    assert text.returncode == lines.returncode == 0
    assert f"taskbridge {tb.__version__} (built in)" in text.stdout
    assert "OAuth client credentials" in text.stdout
    assert max(map(len, text.stdout.splitlines())) <= 80
    listed = {record["name"]: record for record in map(json.loads, lines.stdout.splitlines())}
    assert set(listed) == {info.name for info in tb.providers()}
    assert listed["cloudconvert"]["long_poll"] is True
    assert listed["cloudconvert"]["problem"] is None
