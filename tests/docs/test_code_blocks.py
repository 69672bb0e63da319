"""Every code block in README.md and docs/ runs, against emulators of the vendors.

The blocks of one page share a namespace and a folder with a configuration of four connections. Credentials and the
emulators' addresses come from the environment. The ids on the pages are those of the vendors' documentation; the tests
replace them with ids that the emulators know.
"""

from __future__ import annotations

import logging
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keyring
import keyring.backend
import pytest

from taskbridge import Bridge, Client
from taskbridge._config.files import read_config
from taskbridge._engine.connection import open_connections
from taskbridge.provider.clock import SystemClock
from taskbridge.testing import Emulator

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
FENCE: Final = re.compile(r"( *)(`{3,})([^`]*)")
MARK: Final = re.compile(r"<!-- not run: (.+) -->")
FILE: Final = re.compile(r"<!-- file: (\w+\.py) -->")  # part of an application or its tests; pytest runs them
LANGUAGES: Final = frozenset({"python", "toml", "console", "text"})  # text is output

# Every block that does not run: page and reason.
NOT_RUN: Final = frozenset(
    {
        ("README.md", "installs"),
        ("README.md", "needs a terminal"),
        ("docs/cli.md", "reads a pipe"),
        (
            "docs/configuration.md",
            "the environment of a shell; tests/core/test_config_environment.py runs such a program",
        ),
        ("docs/examples/taskbridge-docling/README.md", "installs"),
        ("docs/examples/taskbridge-docling/README.md", "the plugin is not installed"),
        ("docs/examples/taskbridge-zamzar/README.md", "installs"),
        ("docs/examples/taskbridge-zamzar/README.md", "the plugin is not installed"),
        ("docs/guides/airflow.md", "installs"),
        ("docs/guides/airflow.md", "needs Airflow"),  # make test-airflow
        ("docs/guides/dbos.md", "needs DBOS"),  # this and the next two: test_engines.py
        ("docs/guides/many-processes.md", "needs PostgreSQL"),  # tests/store/test_postgresql.py does the same
        ("docs/guides/operating-a-store.md", "needs PostgreSQL"),  # as above
        ("docs/guides/operating-a-store.md", "rules for Prometheus"),
        ("docs/guides/prefect.md", "needs Prefect"),
        ("docs/guides/serving.md", "a configuration of nginx"),
        ("docs/guides/serving.md", "a unit for systemd"),
        ("docs/guides/serving.md", "needs an uncertain submission"),
        ("docs/guides/serving.md", "runs until it is stopped"),
        ("docs/guides/temporal.md", "needs Temporal"),
        ("docs/guides/temporal.md", "needs a Temporal server"),
        ("docs/index.md", "installs"),
        ("docs/observing.md", "a rule for Prometheus"),
        ("docs/quickstart.md", "installs"),
        ("docs/testing.md", "needs an account"),
        ("docs/testing.md", "needs the address and the token"),
        ("docs/testing.md", "runs until it is stopped"),
        ("docs/testing.md", "a test of yours, for pytest"),
        ("docs/tutorial.md", "installs"),
        ("docs/tutorial-provider.md", "a piece of pyproject.toml"),
        ("docs/tutorial-provider.md", "a piece of taskbridge_zamzar/emulator.py"),
        ("docs/tutorial-provider.md", "a piece of taskbridge_zamzar/provider.py"),
        ("docs/tutorial-provider.md", "a piece of tests/test_zamzar_suite.py"),
        ("docs/tutorial-provider.md", "a piece of tests/test_official_client.py"),
        ("docs/tutorial-provider.md", "a piece of tests/test_zamzar.py"),
        ("docs/tutorial-provider.md", "installs"),
        ("docs/writing-a-provider.md", "installs"),
        ("docs/writing-a-provider.md", "the file of another project"),
    }
)

# Connection of the configuration -> vendor.
CONNECTIONS: Final[Mapping[str, str]] = {
    "invoices": "cloudconvert",
    "scans": "scan-documents",
    "contracts": "smartdocumentor",
    "layouts": "expertai-extract",
}

# Environment variable on the pages -> vendor and setting.
VARIABLES: Final[Mapping[str, tuple[str, str]]] = {
    "CLOUDCONVERT_API_KEY": ("cloudconvert", "api_key"),
    "SCAN_DOCUMENTS_API_KEY": ("scan-documents", "api_key"),
    "SMARTDOCUMENTOR_CLIENT_ID": ("smartdocumentor", "client_id"),
    "SMARTDOCUMENTOR_CLIENT_SECRET": ("smartdocumentor", "client_secret"),
    "EAI_USERNAME": ("expertai-extract", "username"),
    "EAI_PASSWORD": ("expertai-extract", "password"),
}

# Environment variable on the pages -> signing secret.
SIGNING: Final[Mapping[str, str]] = {"CLOUDCONVERT_WEBHOOK_SECRET": "a-signing-secret-of-a-test"}

# Id in a vendor's documentation -> vendor and label of the emulator's sample.
IDS: Final[Mapping[str, tuple[str, str]]] = {
    "c85f3ca9-164c-4e89-8ae2-c08192a7cb08": ("cloudconvert", "completed"),
    "4c80f1ae-5b3a-43d5-bb58-1a5c4eb4e46b": ("cloudconvert", "failed"),
    "job/73df1e16-fd8b-47a1-a156-f197babde91a": ("cloudconvert", "job-running"),
    "job/b2e4eb2b-a744-4da2-97cd-776d393532a8": ("cloudconvert", "job-failed"),
    "48c6e72a-d6d3-4d0f-a5ef-6a1f1ee0a5b2": ("cloudconvert", "waiting-upload"),
    "task_euyrvozb9302uwhq": ("scan-documents", "completed"),
    "task_avyrvozb9302uwhq": ("scan-documents", "failed"),
    "task_text0ozb9302uwhq": ("scan-documents", "text"),
    "5c1dd1d8-3a2b-4f6a-9b0e-2f8b7c1d6e5f": ("expertai-extract", "completed"),
    "9d0c2f64-0f5e-4e0b-8f0c-0d5a3b1c7e42": ("expertai-extract", "partial"),
}
URLS: Final = frozenset({"base_url", "sync_url", "token_url"})


@dataclass(frozen=True)
class Block:
    page: Path
    line: int  # of the first line of code
    language: str
    code: str
    reason: str | None  # why it does not run
    file: str | None = None  # the file that it is a part of

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    above, at = "", 0
    while at < len(lines):
        fence = FENCE.fullmatch(lines[at])
        if fence is None:
            above, at = lines[at] or above, at + 1
            continue
        indent, ticks, language = fence.groups()
        end = next(n for n in range(at + 1, len(lines)) if lines[n].strip() == ticks)
        code = "\n".join(line.removeprefix(indent) for line in lines[at + 1 : end]) + "\n"
        mark = MARK.fullmatch(above.strip())
        file = FILE.fullmatch(above.strip())
        yield Block(page, at + 2, language.strip(), code, mark[1] if mark else None, file[1] if file else None)
        above, at = "", end + 1


ALL: Final = [block for page in PAGES for block in blocks(page)]


def runnable(language: str) -> list[Block]:
    return [b for b in ALL if b.language == language and b.reason is None and b.file is None]


def name(value: object) -> str:
    if isinstance(value, Block):
        return value.where
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(*CONNECTIONS.values(), speed=50) as running:
        yield running


@pytest.fixture
def environment(emulator: Emulator) -> dict[str, str]:
    """The credentials of the configuration, and overrides with the addresses of the emulators."""
    found = {variable: emulator.settings(vendor)[key] for variable, (vendor, key) in VARIABLES.items()}
    for connection, vendor in CONNECTIONS.items():
        prefix = f"TASKBRIDGE_{connection.upper()}__"
        found |= {f"{prefix}{key.upper()}": url for key, url in emulator.settings(vendor).items() if key in URLS}
        found[f"{prefix}POLL__LATENCY"] = "0.02"
    return found


@pytest.fixture
def place(tmp_path: Path, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration and a document, and the environment that the configuration needs."""
    lines = ['default = "invoices"']
    for connection, vendor in CONNECTIONS.items():
        lines += [f"[connections.{connection}]", f'provider = "{vendor}"']
        lines += [f'{key} = "${{{variable}}}"' for variable, (owner, key) in VARIABLES.items() if owner == vendor]
    lines += ["[connections.text]", 'first = ["contracts", "scans"]']
    (tmp_path / "taskbridge.toml").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "page.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))  # a document
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TASKBRIDGE_CONFIG", raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    return tmp_path


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Restore the loggers, because pages configure logging for the whole process."""
    loggers = [logging.getLogger(name) for name in (None, "taskbridge", "taskbridge.requests", "taskbridge.tasks")]
    before = [(each.level, each.propagate, list(each.handlers), list(each.filters)) for each in loggers]
    yield
    for logger, (level, propagate, handlers, filters) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate, logger.handlers, logger.filters = propagate, handlers, filters


def known_ids(code: str, emulator: Emulator) -> str:
    for documented, (vendor, label) in IDS.items():
        code = code.replace(documented, emulator.samples(vendor)[label])
    return code


@pytest.mark.usefixtures("logging_as_before")
@pytest.mark.parametrize("page", [p for p in PAGES if any(b.page == p for b in runnable("python"))], ids=name)
def test_python_blocks_run(page: Path, place: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    del place
    if page.name == "webhooks.md":  # receivers refuse a connection without a secret
        for connection in ("contracts", "invoices", "scans"):
            monkeypatch.setenv(f"TASKBRIDGE_{connection.upper()}__WEBHOOK_SECRETS", "a-signing-secret-of-a-test")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        for block in runnable("python"):
            if block.page == page:
                # Pad with empty lines, so that a traceback shows the line of the page.
                padded = "\n" * (block.line - 1) + known_ids(block.code, emulator)
                exec(compile(padded, str(page), "exec"), namespace)  # our own pages
    finally:
        for value in list(namespace.values()):
            if isinstance(value, Client | Bridge):
                value.close()


@pytest.mark.parametrize("page", sorted({b.page for b in ALL if b.file is not None}), ids=name)
def test_tests_of_an_application_pass(page: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # other plugins take seconds to load
    files: dict[str, str] = {}
    for block in (b for b in ALL if b.page == page and b.file is not None):
        files[block.file or ""] = files.get(block.file or "", "") + block.code
    for file, text in files.items():
        (pytester.path / file).write_text(text, encoding="utf-8")
    result = pytester.runpytest_inprocess("-p", "taskbridge.testing.plugin", "-W", "error")
    result.assert_outcomes(passed=result.parseoutcomes()["passed"])
    assert result.parseoutcomes()["passed"] >= sum(text.count("def test_") for text in files.values())


class OneKeyring(keyring.backend.KeyringBackend):
    """A keyring that has a password for everything."""

    priority = 1  # pyright: ignore[reportAssignmentType]  # as the package's own backends do

    def get_password(self, service: str, username: str) -> str:
        return f"a-password-of-{service}-{username}"

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError(service, username, password)


@pytest.fixture
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that stands for /run/secrets, with a file for each vendor; and a keyring."""
    folder, before = tmp_path_factory.mktemp("secrets"), keyring.get_keyring()
    for vendor in CONNECTIONS.values():
        (folder / vendor).write_text(f"a-key-of-{vendor}\n")
    keyring.set_keyring(OneKeyring())  # type: ignore[no-untyped-call]  # the package's own
    yield folder
    keyring.set_keyring(before)


@pytest.mark.parametrize("block", runnable("toml"), ids=name)
def test_configurations_are_valid(block: Block, environment: Mapping[str, str], mounted: Path) -> None:
    credentials = {**{variable: environment[variable] for variable in VARIABLES}, **SIGNING}
    config = read_config(block.code.replace("/run/secrets", str(mounted)), environ=credentials)
    assert open_connections(config, SystemClock()).keys() == config.connections.keys()


def command() -> str | None:
    """Return the path of the installed command, if it runs."""
    path = Path(sys.executable).with_name("taskbridge")
    if not path.exists():
        return None
    started = subprocess.run([path, "--help"], check=False, capture_output=True, timeout=30)
    return str(path) if started.returncode == 0 else None


@pytest.mark.parametrize("block", runnable("console"), ids=name)
def test_commands_succeed(block: Block, place: Path, emulator: Emulator) -> None:
    program = command()
    if program is None:
        pytest.skip("the command line is not installed")
    lines = [line[2:] for line in known_ids(block.code, emulator).splitlines() if line.startswith("$ ")]
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[0] == "taskbridge", f"{block.where}: mark a block of another program as not run"
        done = subprocess.run([program, *words[1:]], check=False, capture_output=True, text=True, timeout=30, cwd=place)
        assert done.returncode == 0, f"{block.where}: {line}\n{done.stderr}"


def test_every_block_has_a_language_that_runs_or_a_reason() -> None:
    unknown = [block.where for block in ALL if block.reason is None and block.language not in LANGUAGES]
    assert unknown == []


def test_blocks_that_do_not_run_are_listed() -> None:
    skipped = {(str(block.page.relative_to(ROOT)), block.reason) for block in ALL if block.reason is not None}
    assert skipped == NOT_RUN


def test_every_reason_is_above_a_block() -> None:
    marks = sum(len(MARK.findall(page.read_text(encoding="utf-8"))) for page in PAGES)
    assert marks == sum(block.reason is not None for block in ALL)
