"""The connection type, and the clients that the hook makes of a connection."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import entry_points

import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

import taskbridge as tb
import taskbridge_airflow
from taskbridge.testing import Emulator
from taskbridge_airflow.hooks import TaskbridgeHook


def test_airflow_knows_the_connection_type() -> None:
    (entry,) = (each for each in entry_points(group="apache_airflow_provider") if "taskbridge" in each.value)
    assert entry.load()()["package-name"] == "taskbridge-airflow"
    hook = ProvidersManagerTaskRuntime().hooks["taskbridge"]  # type: ignore[no-untyped-call]  # Airflow's
    assert hook is not None
    assert hook.hook_class_name == "taskbridge_airflow.hooks.TaskbridgeHook"
    manager = ProvidersManager()  # type: ignore[no-untyped-call]  # as above
    assert manager.providers["taskbridge-airflow"].version == taskbridge_airflow.__version__
    assert "extra__taskbridge__provider" in manager.connection_form_widgets
    assert manager.field_behaviours["taskbridge"]["relabeling"]["host"] == "Base URL"


@pytest.mark.parametrize("vendor", ["cloudconvert", "scan-documents", "smartdocumentor", "expertai-extract"])
def test_a_connection_becomes_a_client(vendor: str, emulator: Emulator, connect: Callable[..., str]) -> None:
    hook = TaskbridgeHook(connect(vendor, requests_per_second=50))
    with hook.get_conn() as client:
        assert client.provider == vendor
        assert client.get(emulator.samples(vendor)["completed"]).status == "completed"
    assert hook.test_connection() == (True, "the vendor accepts the credential")


def test_a_refused_credential_fails_the_test_of_a_connection(connect: Callable[..., str], emulator: Emulator) -> None:
    hook = TaskbridgeHook(connect())
    emulator.fail_next(401, times=5)
    accepted, why = hook.test_connection()
    assert not accepted
    assert "401" in why


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"extra": ""}, "must name a provider"),
        ({"extra": '{"api_key": "hunter2"'}, "must be a JSON object"),
        ({"extra": '["hunter2"]'}, "must be a JSON object"),
        ({"extra": '{"provider": "cloudconvert"}', "login": "hunter2"}, "leave the login empty"),
        ({"extra": '{"provider": "cloudconvert", "api_key": "hunter2"}', "password": "hunter2"}, "remove one"),
        ({"extra": '{"provider": "cloudconvert", "pol": {}}', "password": "hunter2"}, "unknown setting 'pol'"),
        ({"extra": '{"provider": "cloudconvert"}', "host": "example.com"}, "api_key"),
    ],
)
def test_fields_that_cannot_be_used_are_named(
    fields: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BAD", json.dumps({"conn_type": "taskbridge", **fields}))
    with pytest.raises(tb.ConfigError, match=problem) as caught:
        TaskbridgeHook("bad").get_conn()
    assert "hunter2" not in str(caught.value)


def test_empty_fields_of_the_form_do_not_count(connect: Callable[..., str]) -> None:
    with TaskbridgeHook(connect(region=None, user_agent_suffix="")).get_conn() as client:
        assert client.provider == "cloudconvert"
