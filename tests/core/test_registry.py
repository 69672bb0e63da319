"""Finding and loading providers, with distributions written into a temporary folder, many of them broken."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge._config import registry
from taskbridge._config.registry import (
    GROUP,
    builtin_providers,
    distribution_name,
    load_provider,
    provider_names,
    require_extra,
)
from taskbridge.provider.base import Provider
from taskbridge.provider.http import Response
from taskbridge.testing import AsyncScriptedTransport, ScriptedTransport

BUILTIN = ("cloudconvert", "expertai-extract", "scan-documents", "smartdocumentor")
NUMBERS = count()  # each plugin gets its own module name: Python keeps what it has imported

WORKING = """
from pydantic import SecretStr
from taskbridge.provider import PLAIN_ID, Capabilities, IdKind, Provider, ProviderSettings, no_requests

class Settings(ProviderSettings):
    api_key: SecretStr
    {setting}: str = "x"

class Plugin(Provider[Settings]):
    name = "{name}"
    title = "Plugin"
    docs = "https://plugin.test"
    Settings = Settings
    capabilities = Capabilities(kinds=(IdKind(PLAIN_ID),), authentication="API key")

    def get(self, task_id):
        return no_requests(None)
"""

Plugin = Callable[..., str]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """Writes a distribution: ``plugin(distribution, entry, code)``; returns the module's name."""
    monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType]  # pytest's own

    def write(
        distribution: str | None, entry: str, code: str = WORKING, *, setting: str = "color", record: str | None = None
    ) -> str:
        module = f"plugin_of_test_{next(NUMBERS)}"
        (tmp_path / f"{module}.py").write_text(code.replace("{name}", entry).replace("{setting}", setting))
        folder = tmp_path / f"{(distribution or module).replace('-', '_')}-1.dist-info"
        folder.mkdir()
        if distribution is not None:
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
        if record is not None:
            (folder / "RECORD").write_text(record)
        (folder / "entry_points.txt").write_text(f"[{GROUP}]\n{entry} = {module}:Plugin\n")
        return module

    return write


def listed(name: str) -> list[tb.ProviderInfo]:
    return [info for info in tb.providers() if info.name == name]


def builtins_work() -> bool:
    problems = {info.name: info.problem for info in tb.providers() if info.builtin}
    return problems == dict.fromkeys(BUILTIN)


def test_the_built_in_providers_are_listed_and_work() -> None:
    assert builtin_providers() == BUILTIN
    assert builtins_work()
    assert all((info.distribution, info.title is None) == (distribution_name(), False) for info in tb.providers())


def test_a_plugin_is_found_by_its_entry_point(plugin: Plugin) -> None:
    plugin("taskbridge-acme", "acme")
    [info] = listed("acme")
    assert (info.distribution, info.version, info.builtin, info.problem) == ("taskbridge-acme", "1.5", False, None)
    assert (info.title, info.capabilities is None) == ("Plugin", False)
    with tb.connect("acme", api_key="k-of-plugin") as client:
        assert client.provider == "acme"


def test_listing_the_names_imports_no_plugin(plugin: Plugin) -> None:
    module = plugin("taskbridge-acme", "acme")
    assert builtin_providers() == BUILTIN
    tb.connect("scan-documents", api_key="k-of-ours").close()
    assert module not in sys.modules


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import no_such_module_here", "ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def f(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise AssertionError('no licence')", "AssertionError: no licence"),
        ("class Other: pass", "AttributeError"),
        ("class Plugin: pass", "is no Provider class"),
        ("Plugin = 7", "is no Provider class"),
        ("from taskbridge.provider import Provider as Plugin", "the class lacks"),
        (WORKING.replace('name = "{name}"', 'name = "other"'), "its class says it is 'other'"),
        (WORKING.replace("{setting}", "max_body"), "its settings redefine max_body"),
        ("raise ValueError('\x1b[31m' + 'x' * 5000)", "ValueError"),
    ],
    ids=lambda text: text[-30:],
)
def test_a_broken_plugin_disables_itself_and_says_why(plugin: Plugin, code: str, words: str) -> None:
    plugin("taskbridge-broken", "broken", code)
    [info] = listed("broken")
    assert info.problem is not None
    assert words in info.problem
    assert "taskbridge-broken 1.5" in info.problem
    assert len(info.problem) < 600
    assert "\x1b" not in info.problem
    assert info.capabilities is None
    with pytest.raises(tb.ProviderLoadError, match="cannot be used"):
        tb.connect("broken", api_key="k")
    assert builtins_work()


@pytest.mark.parametrize("between", [(), ("taskbridge-between",)], ids=["adjacent", "apart"])
def test_two_third_parties_with_the_same_name_are_both_disabled(plugin: Plugin, between: tuple[str, ...]) -> None:
    plugin("taskbridge-a", "acme")
    for distribution in between:
        plugin(distribution, "other")
    plugin("taskbridge-z", "acme")
    assert [(info.distribution, info.capabilities) for info in listed("acme")] == [
        ("taskbridge-a", None),
        ("taskbridge-z", None),
    ]
    for info in listed("acme"):
        assert info.problem == "several distributions contain it (taskbridge-a, taskbridge-z); uninstall all but one"
    with pytest.raises(tb.ProviderLoadError, match="uninstall all but one"):
        load_provider("acme")
    assert all(info.problem is None for distribution in between for info in listed("other") if distribution)
    assert builtins_work()


def test_unnamed_distributions_clash_too(plugin: Plugin) -> None:
    plugin(None, "acme")
    plugin(None, "acme")
    assert [info.problem is None for info in listed("acme")] == [False, False]
    assert builtins_work()


def test_a_third_party_that_takes_a_built_in_name_is_disabled_and_never_imported(plugin: Plugin) -> None:
    module = plugin("taskbridge-pirate", "cloudconvert")
    ours, theirs = sorted(listed("cloudconvert"), key=lambda info: not info.builtin)
    assert (ours.builtin, ours.problem) == (True, None)
    assert theirs.problem == (
        "the name belongs to the built-in provider; uninstall taskbridge-pirate or rename its entry point"
    )
    assert load_provider("cloudconvert").__module__ == "taskbridge_cloudconvert.provider"
    assert module not in sys.modules


def test_a_built_in_is_known_by_the_files_of_its_distribution_not_by_a_name(plugin: Plugin) -> None:
    plugin("taskbridge-nested", "acme", record="plugin.py,,\ntaskbridge_x/taskbridge/__init__.py,,\n")
    plugin("taskbridge-copy", "other", record="taskbridge/__init__.py,,\n")  # but not the package that runs
    assert [info.builtin for name in ("acme", "other") for info in listed(name)] == [False, False]
    assert builtin_providers() == BUILTIN


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"url": 1, "dir_info": {"editable": true}}', '{"dir_info": {}, "url": "x"}']
)
def test_a_broken_direct_url_does_no_harm(plugin: Plugin, tmp_path: Path, text: str) -> None:
    plugin("taskbridge-acme", "acme", record="")
    (tmp_path / "taskbridge_acme-1.dist-info" / "direct_url.json").write_text(text)
    assert [(info.builtin, info.problem) for info in listed("acme")] == [(False, None)]


def test_the_hint_for_a_missing_extra_names_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    hint = f"a wait needs rich; install it with: pip install '{distribution_name()}[cli]'"
    assert require_extra("rich", "cli", "a wait").message == hint

    def none(**_: str) -> tuple[()]:
        return ()

    monkeypatch.setattr(registry, "entry_points", none)  # a frozen program without metadata
    assert distribution_name() == "document-taskbridge"


def test_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(tb.ProviderNotFound, match=r"did you mean 'cloudconvert'\? installed are cloudconvert, "):
        tb.connect("cloudconvrt", api_key="k")
    with pytest.raises(tb.ProviderNotFound) as caught:
        load_provider("\x1b[31m" + "x" * 500)
    assert "\x1b" not in str(caught.value)


def test_a_connection_name_given_as_a_provider_is_recognized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "taskbridge.toml"
    path.write_text('[connections.invoices]\nprovider = "cloudconvert"\napi_key = "k"\n', encoding="utf-8")
    monkeypatch.setenv("TASKBRIDGE_CONFIG", str(path))
    with pytest.raises(tb.ProviderNotFound, match=r"connect\(connection='invoices'\)$"):
        tb.connect("invoices")
    with pytest.raises(tb.ProviderNotFound, match=r"installed are [\w, -]+$"):
        tb.connect("receipts")


def test_a_stale_stevedore_cache_does_no_harm(plugin: Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plugin("taskbridge-first", "first")
    assert [info.problem for info in listed("first")] == [None]
    plugin("taskbridge-second", "second")
    assert [info.problem for info in listed("second")] == [None]


def test_entry_points_and_provider_folders_are_the_same() -> None:
    from importlib.metadata import entry_points  # noqa: PLC0415  # only here

    root = Path(__file__).parents[2] / "providers"
    folders = {path.name for path in root.glob("taskbridge_*") if path.is_dir()}
    for group in (GROUP, "taskbridge.emulators"):
        points = [point for point in entry_points(group=group) if point.dist and point.dist.name == distribution_name()]
        assert {point.module.partition(".")[0] for point in points} == folders
        assert tuple(sorted(point.name for point in points)) == BUILTIN


# Without metadata.


WITHOUT_METADATA = """
import importlib.metadata, sys
importlib.metadata.MetadataPathFinder.find_distributions = lambda *args, **options: iter(())
from taskbridge.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("words", [("providers",), ("doctor", "--offline"), ("get", "a:task_1")])
def test_missing_metadata_is_named_as_such(words: tuple[str, ...], tmp_path: Path) -> None:
    config = tmp_path / "taskbridge.toml"
    config.write_text('[connections.a]\nprovider = "scan-documents"\napi_key = "some-key-0123"\n')
    command = [sys.executable, "-c", WITHOUT_METADATA, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2
    assert "the package's metadata is missing; a frozen program must include it" in said
    assert "--copy-metadata document-taskbridge" in said


# A class instead of a name.


def test_a_class_needs_no_distribution(acme_type: type[Provider[Any]], says: Callable[..., Response]) -> None:
    transport = ScriptedTransport([says("t1", "done")])
    with tb.connect(acme_type, api_key="key-of-acme-123", transport=transport) as client:
        assert (client.name, client.provider) == ("acme", "acme")
        assert client.get("t1").ref == "acme:t1"
    assert "acme" not in provider_names()


def test_a_class_works_with_the_asynchronous_client(
    acme_type: type[Provider[Any]], says: Callable[..., Response]
) -> None:
    async def get() -> tb.Task:
        transport = AsyncScriptedTransport([says("t1", "done")])
        async with aio.connect(acme_type, api_key="key-of-acme-123", transport=transport) as client:
            return await client.get("t1")

    assert asyncio.run(get()).is_terminal


def test_settings_of_a_class_are_checked(acme_type: type[Provider[Any]]) -> None:
    with pytest.raises(tb.ConfigError, match="api_key is missing"):
        tb.connect(acme_type)
    with pytest.raises(tb.ConfigError, match=r"unknown setting 'api_kee'; did you mean 'api_key'"):
        tb.connect(acme_type, api_kee="key-of-acme-123")
    with pytest.raises(tb.ConfigError, match="not both"):
        tb.connect(acme_type, connection="invoices")


@pytest.mark.parametrize("given", [dict, 3, object()])
def test_what_is_no_provider_is_refused(given: Any) -> None:
    with pytest.raises(tb.ConfigError, match=r"takes a provider's name or its class, not (dict|int|object)"):
        tb.connect(given)


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"name": "Acme: two"}, "its name must be lower-case letters, digits and dashes"),
        ({"name": None}, "its name must be lower-case letters, digits and dashes"),
    ],
)
def test_a_class_that_cannot_work_is_refused(
    acme_type: type[Provider[Any]], attributes: dict[str, Any], problem: str
) -> None:
    broken = type("Broken", (acme_type,), attributes)
    with pytest.raises(tb.ProviderLoadError, match=problem):
        tb.connect(broken, api_key="key-of-acme-123")


def test_an_unfinished_class_names_what_it_lacks() -> None:
    class Unfinished(Provider[Any]):
        name = "unfinished"

    with pytest.raises(tb.ProviderLoadError, match="of this program cannot be used: the class lacks title, docs"):
        tb.connect(Unfinished)
