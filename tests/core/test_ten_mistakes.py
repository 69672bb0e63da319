"""The ten most common mistakes and their errors; `docs/mistakes.md` is rendered from this table.

Run this file as a script to rewrite the page.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import taskbridge as tb
from taskbridge._config.registry import GROUP, distribution_name
from taskbridge.testing import Emulator

PAGE = Path(__file__).parents[2] / "docs" / "mistakes.md"
KEY = "sk-0123456789abcdef"


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    Attributes:
        title: What went wrong, in the user's words.
        code: The code with the mistake.
        make: Makes the mistake.
        kind: The error that is raised.
        advice: Part of the message that says what to do.
    """

    title: str
    code: str
    make: Callable[[Path], object]
    kind: type[tb.TaskbridgeError]
    advice: str


FILE = """\
[connections.invoices]
provider = "scan-documents"
api_key = "sk-0123456789abcdef"
"""


def wrong_key(_: Path) -> object:
    with Emulator("scan-documents") as vendor:
        settings = vendor.settings()
        with tb.connect("scan-documents", api_key=KEY, base_url=settings["base_url"]) as client:
            return client.get("task_1")


def wrong_id(_: Path) -> object:
    with tb.connect("scan-documents", api_key=KEY) as client:
        return client.get("https://scan-documents.com/tasks/task_1")


def key_in_the_wrong_field(_: Path) -> object:
    return tb.connect("smartdocumentor", api_key=KEY)


def wrong_connection(folder: Path) -> object:
    path = folder / "taskbridge.toml"
    path.write_text(FILE)
    return tb.connect(connection="invoice", config=path)


def missing_extra(_: Path) -> object:
    """Run without the extra: in a separate interpreter that cannot import pycurl."""
    script = (
        "import sys\nsys.modules['pycurl'] = None\nimport taskbridge as tb\n"
        f"try:\n    tb.connect('scan-documents', api_key='{KEY}', transport='curl')\n"
        "except tb.ConfigError as error:\n    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    raise tb.ConfigError(ran.stdout.strip())


def broken_plugin(folder: Path) -> object:
    (folder / "taskbridge_acme_broken.py").write_text("import acme_sdk\n")
    info = folder / "taskbridge_acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: taskbridge-acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nacme = taskbridge_acme_broken:Acme\n")
    sys.path.insert(0, str(folder))
    try:
        return tb.connect("acme", api_key=KEY)
    finally:
        sys.path.remove(str(folder))


def no_config(_: Path) -> object:
    return tb.connect()


MISTAKES: tuple[Mistake, ...] = (
    Mistake(
        "No key",
        'tb.connect("scan-documents")',
        lambda _: tb.connect("scan-documents"),
        tb.ConfigError,
        "pass api_key=",
    ),
    Mistake(
        "A wrong key",
        'client.get("task_1")',
        wrong_key,
        tb.AuthenticationError,
        "check that the credential is right",
    ),
    Mistake(
        "A wrong id",
        'client.get("https://scan-documents.com/tasks/task_1")',
        wrong_id,
        tb.InvalidTaskId,
        "ids look like task_",
    ),
    Mistake(
        "A wrong provider name",
        'tb.connect("cloud-convert", api_key=key)',
        lambda _: tb.connect("cloud-convert", api_key=KEY),
        tb.ProviderNotFound,
        "did you mean 'cloudconvert'?",
    ),
    Mistake(
        "A missing extra",
        'tb.connect("scan-documents", api_key=key, transport="curl")',
        missing_extra,
        tb.ConfigError,
        f"pip install '{distribution_name()}[curl]'",
    ),
    Mistake(
        "The key in the wrong field",
        'tb.connect("smartdocumentor", api_key=key)',
        key_in_the_wrong_field,
        tb.ConfigError,
        "which takes client_id, client_secret",
    ),
    Mistake(
        "No configuration",
        "tb.connect()",
        no_config,
        tb.ConfigError,
        "or name the provider and its settings",
    ),
    Mistake(
        "An `http` address",
        'tb.connect("scan-documents", api_key=key, base_url="http://gateway.example.com/v1")',
        lambda _: tb.connect("scan-documents", api_key=KEY, base_url="http://gateway.example.com/v1"),
        tb.ConfigError,
        "use https, or set allow_http = true",
    ),
    Mistake(
        "A wrong connection name",
        'tb.connect(connection="invoice")',
        wrong_connection,
        tb.ConfigError,
        "did you mean 'invoices'?",
    ),
    Mistake(
        "A plugin that cannot be imported",
        'tb.connect("acme", api_key=key)',
        broken_plugin,
        tb.ProviderLoadError,
        "upgrade or uninstall taskbridge-acme",
    ),
)

HEAD = """\
# The ten most common mistakes

What you wrote, and the error that taskbridge raises. A test compares this page with the actual messages.
"""


@contextmanager
def elsewhere(folder: Path) -> Generator[None, None, None]:
    """Work in a folder as a user without a configuration."""
    before, environ = Path.cwd(), dict(os.environ)
    os.environ.pop("TASKBRIDGE_CONFIG", None)
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environ)


def raised(mistake: Mistake, folder: Path) -> tuple[tb.TaskbridgeError, str]:
    """Return the error, and its text as shown on the page."""
    with elsewhere(folder):
        try:
            mistake.make(folder)
        except tb.TaskbridgeError as error:
            text = str(error).replace(str(folder / "config"), "/home/you/.config")
            return error, text.replace(str(folder), "/home/you/project")
    raise AssertionError(f"{mistake.title}: nothing was raised")


def rendered() -> str:
    """The page."""
    sections = [HEAD]
    for mistake in MISTAKES:
        with tempfile.TemporaryDirectory() as folder:
            error, text = raised(mistake, Path(folder))
        sections.append(f"## {mistake.title}\n\n`{mistake.code}`\n\n    {type(error).__name__}: {text}\n")
    return "\n".join(sections)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.title)
def test_a_mistake_gets_advice(mistake: Mistake, tmp_path: Path) -> None:
    error, text = raised(mistake, tmp_path)
    assert type(error) is mistake.kind
    assert mistake.advice in text
    assert KEY not in text
    assert text.isprintable()


def test_there_are_ten_mistakes() -> None:
    assert len({mistake.title for mistake in MISTAKES}) == 10


def test_the_page_shows_the_errors_that_are_raised() -> None:
    assert PAGE.read_text(encoding="utf-8") == rendered()


if __name__ == "__main__":
    PAGE.write_text(rendered(), encoding="utf-8")
