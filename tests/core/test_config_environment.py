"""Configuration without a file: connections and credentials from the environment, and what is said about them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

import taskbridge as tb
from taskbridge._config.connections import add_vendor_variables, connection_settings
from taskbridge._config.files import Config, load_config, provider_connection, read_config
from taskbridge._config.registry import load_builtin_providers
from taskbridge.provider.http import Request, Response
from taskbridge.testing import Emulator, ScriptedTransport

PROVIDERS = load_builtin_providers()
KEY: Final = "sk-live-0123456789abcdef"
OTHER: Final = "sk-live-fedcba9876543210"


@pytest.fixture(autouse=True)
def no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration file is in reach, and no variable of the machine counts."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    customary = {name for provider in PROVIDERS.values() for name in provider.Settings.variables.values()}
    for name in list(os.environ):
        if name.startswith("TASKBRIDGE_") or name in customary:
            monkeypatch.delenv(name)


def refused(environ: Mapping[str, str], text: str = "") -> str:
    with pytest.raises(tb.ConfigError) as caught:
        read_config(text, environ=environ)
    return str(caught.value)


# A connection from variables alone.


def test_a_provider_variable_alone_defines_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(None, {"TASKBRIDGE_SCAN_2__PROVIDER": "scan-documents", "TASKBRIDGE_SCAN_2__API_KEY": KEY})
    assert (config.path, config.names) == (None, ("scan-2",))
    assert config.connection().origins["provider"] == "environment variable TASKBRIDGE_SCAN_2__PROVIDER"
    monkeypatch.setenv("TASKBRIDGE_INVOICES__PROVIDER", "cloudconvert")
    monkeypatch.setenv("CLOUDCONVERT_API_KEY", KEY)
    with tb.connect() as client, tb.Bridge.from_config() as bridge:
        assert (client.name, client.provider, bridge.connections) == ("invoices", "cloudconvert", ("invoices",))
    with pytest.raises(
        tb.ConfigError, match="no connection 'scans' in the environment; set TASKBRIDGE_SCANS__PROVIDER"
    ):
        tb.connect(connection="scans")


def test_variables_add_connections_to_a_file() -> None:
    text = '[connections.a]\nprovider = "cloudconvert"\n[connections.g]\nfirst = ["a", "b"]'
    config = read_config(text, environ={"taskbridge_b__provider": "scan-documents", "TASKBRIDGE_C__PROVIDER": ""})
    assert config.names == ("a", "b", "g")
    assert config.connection("b").provider == "scan-documents"


def test_a_named_file_that_is_missing_is_not_replaced_by_variables() -> None:
    environ = {"TASKBRIDGE_CONFIG": "/nowhere.toml", "TASKBRIDGE_A__PROVIDER": "cloudconvert"}
    with pytest.raises(tb.ConfigError, match="does not exist"):
        load_config(None, environ)
    with pytest.raises(tb.ConfigError, match="TASKBRIDGE_<NAME>__PROVIDER"):
        load_config(None, {"TASKBRIDGE_A__API_KEY": KEY})


@pytest.mark.parametrize(
    "variable",
    ["TASKBRIDGE_A__B__PROVIDER", "TASKBRIDGE_A___PROVIDER", "TASKBRIDGE__A__PROVIDER", "TASKBRIDGE___PROVIDER"],
)
def test_a_variable_that_could_name_several_connections_is_refused(variable: str) -> None:
    message = refused({variable: KEY})
    assert variable in message
    assert "defines no connection" in message
    assert KEY not in message


def test_a_key_that_is_called_provider_defines_nothing() -> None:
    environ = {"TASKBRIDGE_A__PROVIDER": "cloudconvert", "TASKBRIDGE_A__SUBMIT__OPTIONS__PROVIDER": "x"}
    config = read_config("", environ=environ)
    assert config.connection("a").values == {"submit": {"options": {"provider": "x"}}}


@pytest.mark.parametrize("name", ["a--b", "a-"])
def test_a_name_that_looks_like_a_key_takes_no_variables(name: str) -> None:
    text = f'[connections."{name}"]\nprovider = "cloudconvert"'
    variable = f"TASKBRIDGE_{name.replace('-', '_').upper()}__API_KEY"
    message = refused({variable: KEY}, text)
    assert f"{variable} is ambiguous" in message
    assert KEY not in message
    assert read_config(text, environ={}).names == (name,)


def test_variables_that_differ_only_in_case_must_agree() -> None:
    environ = {"TASKBRIDGE_A__PROVIDER": "cloudconvert", "TASKBRIDGE_A__API_KEY": KEY, "TASKBRIDGE_a__API_KEY": OTHER}
    assert "differ only in case" in refused(environ)
    same = read_config("", environ={**environ, "TASKBRIDGE_a__API_KEY": KEY})
    assert same.connection("a").values == {"api_key": KEY}


def test_a_variable_within_a_setting_replaces_it_but_not_another_variable() -> None:
    text = f'[connections.a]\nprovider = "cloudconvert"\napi_key = "{OTHER}"'
    source = {"TASKBRIDGE_A__API_KEY__FILE": "/run/no-such-key"}
    connection = read_config(text, environ=source).connection()
    with pytest.raises(tb.ConfigError, match="api_key \\(from environment variable TASKBRIDGE_A__API_KEY__FILE\\)"):
        connection_settings(connection, PROVIDERS["cloudconvert"])
    for own in ("TASKBRIDGE_A__API_KEY", "TASKBRIDGE_a__api_key"):
        message = refused({**source, own: KEY}, text)
        assert f"{own} and TASKBRIDGE_A__API_KEY__FILE give api_key two values; unset one" in message
    assert read_config(text, environ={**source, "TASKBRIDGE_A__API_KEY": ""}).connection().values == connection.values


def test_digits_are_a_text_where_the_setting_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("SUBMIT__LANGUAGE", "SUBMIT__PAGES", "SUBMIT__DPI", "USER_AGENT_SUFFIX", "API_KEY"):
        monkeypatch.setenv(f"TASKBRIDGE_CLOUDCONVERT__{key}", "0300")
    common, _ = connection_settings(provider_connection("cloudconvert", {}), PROVIDERS["cloudconvert"])
    assert (common.submit.language, common.submit.pages, common.submit.dpi) == ("0300", 300, 300)
    assert common.user_agent_suffix == "0300"


# connect() with a provider.


def test_the_order_is_keyword_then_own_variable_then_the_vendors() -> None:
    environ = {"CLOUDCONVERT_API_KEY": KEY, "TASKBRIDGE_CLOUDCONVERT__API_KEY": OTHER}
    provider = PROVIDERS["cloudconvert"]

    def found(settings: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Any, str | None]:
        connection = add_vendor_variables(provider_connection("cloudconvert", settings, environ), provider, environ)
        return connection.values.get("api_key"), connection.origins.get("api_key")

    assert found({"api_key": "given-key"}, environ) == ("given-key", "connect()")
    assert found({}, environ) == (OTHER, "environment variable TASKBRIDGE_CLOUDCONVERT__API_KEY")
    del environ["TASKBRIDGE_CLOUDCONVERT__API_KEY"]
    assert found({}, environ) == (KEY, "environment variable CLOUDCONVERT_API_KEY")
    assert found({}, {"CLOUDCONVERT_API_KEY": ""}) == (None, None)


def test_keywords_replace_a_table_of_the_environment() -> None:
    environ = {"TASKBRIDGE_CLOUDCONVERT__POLL__LATENCY": "3", "TASKBRIDGE_CLOUDCONVERT__RETRY__ATTEMPTS": "2"}
    connection = provider_connection("cloudconvert", {"poll": {"interval": 1.0}}, environ)
    assert connection.values == {"poll": {"interval": 1.0}, "retry": {"attempts": "2"}}
    assert set(connection.origins) == {"poll", "retry.attempts"}


def test_a_token_of_the_connection_outweighs_the_vendors_password_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAI_USERNAME", "me@example.com")
    monkeypatch.setenv("EAI_PASSWORD", "a-password-of-mine")
    with tb.connect("expertai-extract") as client, tb.connect("expertai-extract", access_token="a-token") as other:
        assert (client.name, other.name) == ("expertai-extract", "expertai-extract")


def test_a_provider_and_a_variable_that_names_another_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKBRIDGE_CLOUDCONVERT__PROVIDER", "scan-documents")
    with pytest.raises(tb.ConfigError, match="TASKBRIDGE_CLOUDCONVERT__PROVIDER gives the connection"):
        tb.connect("cloudconvert", api_key=KEY)
    monkeypatch.setenv("TASKBRIDGE_CLOUDCONVERT__PROVIDER", "cloudconvert")
    tb.connect("cloudconvert", api_key=KEY).close()


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_a_missing_credential_names_the_vendors_variables(name: str) -> None:
    variables = PROVIDERS[name].Settings.variables
    assert set(variables) <= set(PROVIDERS[name].Settings.model_fields)
    with pytest.raises(tb.ConfigError) as caught:
        tb.connect(name)
    assert all(variable in str(caught.value) for variable in variables.values())


def test_the_error_of_a_refused_credential_says_where_it_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDCONVERT_API_KEY", KEY)

    def refuse(_: Request) -> Response:
        return Response(401, {}, b"{}")

    given: dict[str, Any] = {"api_key": KEY}
    for settings, where in (({}, "api_key from environment variable CLOUDCONVERT_API_KEY"), (given, None)):
        with tb.connect("cloudconvert", transport=ScriptedTransport(refuse), **settings) as client:
            with pytest.raises(tb.AuthenticationError) as caught:
                client.get("c85f3ca9-164c-4e89-8ae2-c08192a7cb08")
            assert ("from environment variable" in str(caught.value)) == (where is not None)
            assert (where or "") in str(caught.value)
            assert KEY not in str(caught.value)


def test_a_webhook_secret_may_be_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKBRIDGE_CLOUDCONVERT__WEBHOOK_SECRETS", "signing-secret")
    with (
        tb.connect("cloudconvert", api_key=KEY) as client,
        pytest.raises(tb.WebhookRejected, match="not signed"),
    ):
        client.parse_webhook({}, b"{}")


def test_a_config_of_the_environment_says_so() -> None:
    assert Config(None, {}).place == "the environment"


# A whole program.

PROGRAM: Final = """
import sys, taskbridge as tb
with tb.connect(*sys.argv[3:]) as client:
    task = client.submit("convert", sys.argv[1], to="pdf")
    (path,) = client.download(client.wait(task, timeout=30), sys.argv[2])
print(task.ref.connection, path.name)
"""


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["cloudconvert"], ("TASKBRIDGE_CLOUDCONVERT__BASE_URL", "CLOUDCONVERT_API_KEY", None)),
        ([], ("TASKBRIDGE_INVOICES__BASE_URL", "TASKBRIDGE_INVOICES__API_KEY", "TASKBRIDGE_INVOICES__PROVIDER")),
    ],
    ids=["two variables", "a connection"],
)
def test_a_program_with_nothing_but_variables_converts_a_document(
    arguments: list[str], names: tuple[str, str, str | None], tmp_path: Path
) -> None:
    document = tmp_path / "report.docx"
    document.write_bytes(b"PK a report")
    with Emulator("cloudconvert", speed=1000) as emulator:
        values = (emulator.settings()["base_url"], emulator.settings()["api_key"], "cloudconvert")
        environ = {name: value for name, value in zip(names, values, strict=True) if name is not None}
        words = [sys.executable, "-c", PROGRAM, str(document), str(tmp_path / "out"), *arguments]
        ran = subprocess.run(
            words, env={**os.environ, **environ}, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    connection = arguments[0] if arguments else "invoices"
    assert (ran.returncode, ran.stdout.split()) == (0, [connection, "report.pdf"]), ran.stderr


# What the commands say.


def run(*words: str, **environ: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "taskbridge", *words, "--json"]
    ran = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, check=False)
    assert KEY not in ran.stdout + ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_config_show_and_doctor_say_which_variable_counts() -> None:
    environ = {"CLOUDCONVERT_API_KEY": KEY, "TASKBRIDGE_SCANS__PROVIDER": "scan-documents"}
    environ |= {"TASKBRIDGE_SCANS__API_KEY__FILE": __file__}
    (shown,) = run("config", "show", "cloudconvert", **environ)
    origin = "environment variable CLOUDCONVERT_API_KEY"
    assert shown["settings"] == {"api_key": {"value": "***", "origin": origin}}
    (scans,) = run("config", "show", **environ)
    assert scans["settings"]["api_key.file"]["value"] == __file__
    assert f"read from the file {__file__}, holds a control character" in scans["problem"]
    findings = run("doctor", "--offline", "cloudconvert", **environ)
    (tried,) = [each for each in findings if each["about"] == "connection"]
    assert tried["message"] == f"cloudconvert, settings are valid; api_key from {origin}; not checked at the vendor"
