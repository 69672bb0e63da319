"""The suite itself: its tests cannot be overridden, they catch what they are for, and they need no emulator."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import pytest

from taskbridge.emulator.shell import GROUP
from taskbridge.models import Reason, Task, TaskResult, TaskStatus
from taskbridge.provider.http import Flow, Response
from taskbridge.testing import ProviderConformance, Sample
from taskbridge.testing.conformance.samples import connection_of, find_emulator
from taskbridge_scan_documents import ScanDocuments

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection

SETTINGS = {"api_key": "key-of-the-suite"}


def sample(task_id: str, status: str, result: object = None) -> Sample:
    body = {"id": task_id, "status": status, "operation": "render", "result": result}
    return Sample(task_id, (Response(200, {}, json.dumps(body).encode()),))


class TestWithoutAnEmulator(ProviderConformance):
    provider = "scan-documents"

    @pytest.fixture(scope="class")
    @classmethod
    def emulator(cls) -> None:
        return None

    @pytest.fixture
    def settings(self) -> Mapping[str, Any]:
        return SETTINGS

    @pytest.fixture
    def samples(self) -> Mapping[str, Sample]:
        return SAMPLES


SAMPLES: Mapping[str, Sample] = {
    "done": sample("task_1", "completed", {"content": "words"}),
    "failed": sample("task_2", "failed", {"error": "no pages"}),
    "working": sample("task_3", "processing"),
}


class Overridden(ProviderConformance):
    provider = "scan-documents"
    test_redirects_are_not_followed = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def test_the_installed_provider_is_listed(self) -> None:
        pass

    @pytest.mark.xfail(reason="the vendor has no such thing")
    def test_the_samples_include_a_completed_and_a_failed_task(
        self, connection: Connection, samples: Mapping[str, Sample]
    ) -> None:
        raise NotImplementedError

    @pytest.mark.xfail
    def test_capabilities_match_the_samples(self, connection: Connection, samples: Mapping[str, Sample]) -> None:
        raise NotImplementedError


def test_a_suite_with_overridden_or_removed_tests_fails() -> None:
    with pytest.raises(AssertionError) as caught:
        Overridden().test_no_test_is_overridden()
    message = str(caught.value)
    for name in ("redirects_are_not_followed", "installed_provider_is_listed", "capabilities_match_the_samples"):
        assert name in message
    assert "samples_include_a_completed_and_a_failed_task" not in message


def test_the_lock_itself_cannot_be_overridden() -> None:
    with pytest.raises(TypeError, match="must not override test_no_test_is_overridden, which keeps the suite complete"):
        type("Picked", (ProviderConformance,), {"test_no_test_is_overridden": None})


def test_an_emulator_that_cannot_be_imported_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("broken", "no_such_module_here:Emulator", GROUP)

    def installed(**_: str) -> list[EntryPoint]:
        return [broken]

    monkeypatch.setattr("taskbridge.emulator.shell.entry_points", installed)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
        find_emulator("broken", speed=1)
    assert find_emulator("another", speed=1) is None


# Each provider breaks one promise; the suite's test of that name must fail.


def broken(
    get: Callable[[ScanDocuments, str], Any] | None = None, change: Mapping[str, Any] | None = None
) -> Connection:
    """Return a connection to a provider that changes each task, or has another `get`."""

    class Broken(ScanDocuments):
        def get(self, task_id: str) -> Flow[Task]:
            if get is not None:
                return get(self, task_id)  # type: ignore[no-any-return]
            return self._changed(super().get(task_id))

        def _changed(self, flow: Flow[Task]) -> Flow[Task]:
            task = yield from flow
            return replace(task, **dict(change or {}))

    connection = connection_of("scan-documents", SETTINGS)
    connection.provider = Broken(connection.provider.settings, "scan-documents")
    return connection


def get_from_a_file(self: ScanDocuments, task_id: str) -> Flow[Task]:
    with open(__file__, encoding="utf-8") as file:  # noqa: PTH123  # what a provider must not do
        file.read(1)
    return ScanDocuments.get(self, task_id)


def get_endlessly(self: ScanDocuments, _: str) -> Flow[Task]:
    while True:
        yield self.request("GET", "/again")


def get_by_index(self: ScanDocuments, task_id: str) -> Flow[Task]:
    response = yield self.request("GET", f"/tasks/{task_id}")
    return response.json()["nothing"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "connection"),
    [
        ("test_flows_do_no_io_and_end", broken(get_from_a_file)),
        ("test_flows_do_no_io_and_end", broken(get_endlessly)),
        ("test_each_sample_becomes_a_valid_task", broken(change={"result": TaskResult(text="x")})),
        ("test_each_sample_becomes_a_valid_task", broken(change={"status": TaskStatus.FAILED})),
        ("test_each_sample_becomes_a_valid_task", broken(change={"progress": 1.5})),
        ("test_each_sample_becomes_a_valid_task", broken(change={"recognized": False})),
        ("test_each_sample_becomes_a_valid_task", broken(change={"native_status": 7})),
        ("test_each_sample_becomes_a_valid_task", broken(change={"message": 7})),
        ("test_capabilities_match_the_samples", broken(change={"progress": 0.5})),
        ("test_capabilities_match_the_samples", broken(change={"reason": Reason.PARTIAL})),
        ("test_the_samples_include_a_completed_and_a_failed_task", broken(change={"status": TaskStatus.PENDING})),
        ("test_an_unknown_status_is_processing_and_not_recognized", broken(change={"recognized": True})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_suite_catches_a_broken_promise(name: str, connection: Connection) -> None:
    suite = TestWithoutAnEmulator()
    with pytest.raises((AssertionError, NotImplementedError)):
        getattr(suite, name)(connection, SAMPLES)


def test_the_suite_catches_a_task_that_contains_the_key() -> None:
    connection = broken(change={"raw": {"key": SETTINGS["api_key"]}})
    with pytest.raises(AssertionError, match="the task contains a credential"):
        TestWithoutAnEmulator().test_no_task_contains_a_credential(connection, SETTINGS, SAMPLES)


def test_the_suite_catches_a_provider_that_cannot_read_a_response() -> None:
    suite = TestWithoutAnEmulator()
    with pytest.raises(AssertionError):
        suite.test_an_unreadable_response_is_a_contract_error(broken(get_by_index), SAMPLES, "an empty object", b"{}")


def test_the_suite_catches_a_provider_that_accepts_any_id() -> None:
    def anything(self: ScanDocuments, _: str) -> Flow[Task]:
        response = yield self.request("GET", "/tasks/t1")
        return self.task(self.payload(response), "t1")

    connection = broken(anything)
    connection.provider.split_id = lambda _: (connection.provider.capabilities.kinds[0], "t1")  # type: ignore[assignment]
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        TestWithoutAnEmulator().test_impossible_ids_are_rejected_before_any_request(connection, "..")
