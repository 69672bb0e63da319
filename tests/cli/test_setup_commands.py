"""`init`, `config show`, `doctor` and `completion`."""

from __future__ import annotations

import json
import stat
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskbridge._config.connections import connection_settings
from taskbridge._config.files import read_config
from taskbridge._config.registry import distribution_name, load_provider, provider_names
from taskbridge.cli.doctor import Finding
from taskbridge.testing import Emulator

Here = Callable[..., subprocess.CompletedProcess[str]]
KEY = "canary-key-8d1f0c77"


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# init.


@pytest.mark.parametrize("name", provider_names())
def test_the_first_configuration_is_valid_once_its_variables_are_set(run_here: Here, tmp_path: Path, name: str) -> None:
    path = tmp_path / "taskbridge.toml"
    done = run_here("init", name, "--to", str(path), "--json")
    (record,) = records(done.stdout)
    assert (done.returncode, record["connections"], record["path"]) == (0, [name], str(path))
    environ = dict.fromkeys(record["variables"], KEY)
    connection = read_config(path.read_text(encoding="utf-8"), environ=environ).connection()
    assert connection.name == name
    connection_settings(connection, load_provider(name))
    assert [connection.values[key] for key in connection.values] == [KEY] * len(environ)
    assert set(load_provider(name).Settings.variables.values()) == set(environ)


def test_each_commented_line_is_a_valid_setting(run_here: Here, tmp_path: Path) -> None:
    path = tmp_path / "taskbridge.toml"
    run_here("init", "--to", str(path))
    lines = path.read_text(encoding="utf-8").splitlines()
    settings = [line[1:] for line in lines if line.startswith("#") and " = " in line and line[1:2].isalpha()]
    known = [line for line in settings if not line.endswith("…")]
    assert len(known) > 15
    for line in known:
        tomllib.loads(line)


def test_an_existing_file_is_overwritten_with_force_only(run_here: Here, tmp_path: Path) -> None:
    path = tmp_path / "taskbridge.toml"
    path.write_text("mine", encoding="utf-8")
    done = run_here("init", "--to", str(path))
    assert (done.returncode, path.read_text(encoding="utf-8")) == (2, "mine")
    assert "--force" in done.stderr
    assert run_here("init", "--to", str(path), "--force").returncode == 0
    assert path.read_text(encoding="utf-8").startswith("# The configuration of taskbridge")


def test_only_the_owner_can_read_the_file(run_here: Here, tmp_path: Path) -> None:
    path = tmp_path / "taskbridge.toml"
    run_here("init", "--to", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_unknown_provider_is_reported_with_the_nearest_name(run_here: Here, tmp_path: Path) -> None:
    done = run_here("init", "cloudconvrt", "--to", str(tmp_path / "t.toml"))
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "did you mean 'cloudconvert'" in done.stderr


def test_a_missing_folder_is_reported(run_here: Here, tmp_path: Path) -> None:
    done = run_here("init", "--to", str(tmp_path / "nowhere" / "t.toml"))
    assert done.returncode == 2
    assert "cannot be written: No such file or directory" in done.stderr


# config show.

FILE = """
default = "invoices"

[connections.invoices]
provider = "cloudconvert"
api_key = "canary-key-8d1f0c77"
region = "eu-central"
proxy = "http://user:canary-key-8d1f0c77@127.0.0.1:3128"
webhook_secrets = ["canary-key-8d1f0c77"]
poll.latency = 2.0
[connections.invoices.submit.options]
password = "canary-key-8d1f0c77"

[connections.other]
provider = "smartdocumentor"
client_id = "${SD_ID}"
client_secret = "${SD_SECRET}"
api_kee = "canary-key-8d1f0c77"
"""


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SD_ID", "an-id")
    monkeypatch.setenv("SD_SECRET", KEY)
    monkeypatch.setenv("TASKBRIDGE_INVOICES__POLL__LATENCY", "3.5")
    path = tmp_path / "taskbridge.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_each_value_is_shown_with_its_origin(run_here: Here, mixed: Path) -> None:
    done = run_here("config", "show", "invoices", "--json", "--config", str(mixed))
    (shown,) = records(done.stdout)
    assert (done.returncode, shown["problem"], shown["provider"]) == (0, None, "cloudconvert")
    settings = shown["settings"]
    assert settings["region"] == {"value": "eu-central", "origin": str(mixed)}
    assert settings["poll.latency"] == {
        "value": "3.5",
        "origin": "environment variable TASKBRIDGE_INVOICES__POLL__LATENCY",
    }
    assert settings["api_key"] == {"value": "***", "origin": str(mixed)}


@pytest.mark.parametrize("words", [(), ("--json",), ("--all",), ("--all", "--json")])
def test_no_secret_is_shown(run_here: Here, mixed: Path, words: tuple[str, ...]) -> None:
    done = run_here("config", "show", *words, "--config", str(mixed))
    assert done.returncode == 2  # one of the connections has an unknown setting
    assert "invoices" in done.stdout
    assert KEY not in done.stdout + done.stderr


def test_an_unusable_connection_is_shown_with_the_cause(run_here: Here, mixed: Path) -> None:
    done = run_here("config", "show", "other", "--config", str(mixed))
    assert "cannot be used: connection 'other': unknown setting 'api_kee'" in done.stdout
    assert "client_secret" in done.stdout


def test_defaults_are_shown_on_request(run_here: Here, mixed: Path) -> None:
    done = run_here("config", "show", "invoices", "--all", "--json", "--config", str(mixed))
    settings = records(done.stdout)[0]["settings"]
    assert settings["max_in_flight"] == {"value": 32, "origin": "default"}
    assert settings["poll.at_most"] == {"value": 300.0, "origin": "default"}
    assert settings["sandbox"] == {"value": False, "origin": "default"}


def test_mapped_status_words_are_shown(run_here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "taskbridge.toml"
    text = """
        [connections.contracts]
        provider = "smartdocumentor"
        access_token = "canary-key-8d1f0c77"
        states.Integrated = "completed"
        states."To.Approve" = "canary-key-8d1f0c77"
    """
    path.write_text(text, encoding="utf-8")
    monkeypatch.setenv("TASKBRIDGE_CONTRACTS__STATES__INTEGRATED", "failed")
    done = run_here("config", "show", "--json", "--config", str(path))
    (shown,) = records(done.stdout)
    assert shown["settings"]["states.Integrated"] == {
        "value": "failed",
        "origin": "environment variable TASKBRIDGE_CONTRACTS__STATES__INTEGRATED",
    }
    assert shown["settings"]["states.To.Approve"]["value"] == "***"  # no status, so perhaps a credential
    assert f"states.To.Approve (from {path}): write what the vendor's word means" in shown["problem"]


# doctor.


def found(done: subprocess.CompletedProcess[str], name: str) -> list[Finding]:
    return [Finding(**one) for one in records(done.stdout) if one["about"] == "connection" and one["name"] == name]


@pytest.mark.parametrize("name", provider_names())
def test_a_valid_credential_is_accepted(run_here: Here, name: str) -> None:
    done = run_here("doctor", name, "--json")
    tried, *more = found(done, name)
    assert (done.returncode, tried.verdict) == (0, "ok")
    assert tried.message.startswith(f"{name}, ")
    assert [one.message for one in more] == ["this computer's clock agrees with the vendor's"]


def test_a_wrong_key_and_an_unreachable_vendor_are_different_problems(run_here: Here) -> None:
    done = run_here("doctor", "--json")
    (refused,), (away,), (unknown,) = (found(done, name) for name in ("wrong-key", "nowhere", "broken"))
    assert (refused.verdict, refused.exit_code) == ("problem", 4)
    assert "AuthenticationError" in refused.message
    assert (away.verdict, away.exit_code) == ("problem", 5)
    assert (unknown.verdict, unknown.exit_code) == ("problem", 2)
    assert done.returncode == 5
    assert "not-the-key" not in done.stdout + done.stderr


def test_offline_sends_nothing(run_here: Here, vendors: Emulator) -> None:
    before = vendors.count("scan-documents")
    done = run_here("doctor", "--offline", "--json")
    assert vendors.count("scan-documents") == before
    (tried,) = found(done, "wrong-key")
    assert (tried.verdict, tried.message) == ("ok", "scan-documents, settings are valid; not checked at the vendor")


def test_without_a_configuration_the_rest_is_still_diagnosed(
    run_here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKBRIDGE_CONFIG", str(tmp_path / "none.toml"))
    done = run_here("doctor")
    assert done.returncode == 2
    assert f"ok    provider cloudconvert: from {distribution_name()}" in done.stdout
    assert "FAIL  configuration" in done.stdout
    assert "does not exist" in done.stdout


def test_the_users_name_is_not_printed(run_here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run_here("init", "--to", str(tmp_path / "t.toml"))
    done = run_here("doctor", "--offline", "--config", str(tmp_path / "t.toml"))
    assert str(tmp_path) not in done.stdout
    assert "configuration ~/t.toml" in done.stdout


@pytest.mark.parametrize("key", ["provider", "ca_bundle", "base_url"])
def test_a_credential_in_the_wrong_place_is_not_printed(key: str, run_here: Here, tmp_path: Path) -> None:
    path, secret = tmp_path / "misplaced.toml", "sk-live-0123456789abcdef"
    values = {"provider": "cloudconvert", "api_key": "some-key-0123", key: secret}
    path.write_text("\n".join(["[connections.a]", *(f'{name} = "{value}"' for name, value in values.items())]))
    shown = [run_here("config", "show", *options, "--config", str(path)) for options in ((), ("--json",))]
    others = [run_here(*words, "--config", str(path)) for words in (("doctor",), ("get", "a:1"))]
    assert all("***" in each.stdout for each in shown)
    assert [each.args for each in (*shown, *others) if each.returncode == 0] == []
    assert secret not in "".join(f"{each.stdout}{each.stderr}" for each in (*shown, *others))


@pytest.mark.parametrize(
    ("mode", "key", "reported"),
    [(0o644, KEY, True), (0o600, KEY, False), (0o644, "${HOME}", False)],
)
def test_credentials_that_others_can_read_are_reported(
    run_here: Here, tmp_path: Path, mode: int, key: str, *, reported: bool
) -> None:
    path = tmp_path / "taskbridge.toml"
    path.write_text(f'[connections.a]\nprovider = "cloudconvert"\napi_key = "{key}"\n', encoding="utf-8")
    path.chmod(mode)
    done = run_here("doctor", "--offline", "--config", str(path))
    assert done.returncode == 0
    assert ("chmod 600" in done.stdout) == reported


# completion.


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(run_here: Here, shell: str) -> None:
    done = run_here("completion", shell)
    assert done.returncode == 0
    assert "_TASKBRIDGE_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("taskbridge doc", {"plain,doctor"}),
        ("taskbridge get sm", {"nospace,smartdocumentor:"}),
        ("taskbridge doctor no", {"plain,nowhere"}),
        ("taskbridge init cl", {"plain,cloudconvert"}),
    ],
)
def test_words_are_completed(run_here: Here, monkeypatch: pytest.MonkeyPatch, typed: str, expected: set[str]) -> None:
    monkeypatch.setenv("_TASKBRIDGE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    done = run_here()
    assert (done.returncode, set(done.stdout.split())) == (0, expected)
