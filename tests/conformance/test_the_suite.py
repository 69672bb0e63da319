"""The suite itself: it cannot be bent, it catches what it is there for, and it needs no emulator."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from taskbridge.emulator.shell import GROUP
from taskbridge.models import Task, TaskResult, TaskStatus
from taskbridge.provider.http import Flow, Response
from taskbridge.testing import ProviderConformance, Sample
from taskbridge.testing.samples import connection_of, emulator_of
from taskbridge_scan_documents import ScanDocuments

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection

SETTINGS = {"api_key": "key-of-the-suite"}


def sample(task_id: str, status: str, result: object = None) -> Sample:
    body = {"id": task_id, "status": status, "operation": "render", "result": result}
    return Sample(task_id, (Response(200, {}, json.dumps(body).encode()),))


class TestWithoutAnEmulator(ProviderConformance):
    provider: ClassVar[str] = "scan-documents"

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


class Bent(ProviderConformance):
    provider: ClassVar[str] = "scan-documents"
    test_redirects_are_not_followed = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def test_the_installed_provider_is_listed(self) -> None:
        pass

    @pytest.mark.xfail(reason="the vendor has no such thing")
    def test_the_samples_show_both_ends(self, connection: Connection, samples: Mapping[str, Sample]) -> None:
        raise NotImplementedError

    @pytest.mark.xfail
    def test_what_the_provider_claims_is_true(self, connection: Connection, samples: Mapping[str, Sample]) -> None:
        raise NotImplementedError


def test_a_suite_with_changed_or_missing_tests_fails() -> None:
    with pytest.raises(AssertionError) as caught:
        Bent().test_no_test_is_bent()
    told = str(caught.value)
    for name in ("redirects_are_not_followed", "installed_provider_is_listed", "what_the_provider_claims"):
        assert name in told
    assert "samples_show_both_ends" not in told


def test_the_lock_itself_is_not_replaced() -> None:
    with pytest.raises(TypeError, match="test_no_test_is_bent is what keeps the suite whole"):
        type("Picked", (ProviderConformance,), {"test_no_test_is_bent": None})


def test_an_emulator_that_cannot_be_imported_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("broken", "no_such_module_here:Emulator", GROUP)

    def installed(**_: str) -> list[EntryPoint]:
        return [broken]

    monkeypatch.setattr("taskbridge.emulator.shell.entry_points", installed)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
        emulator_of("broken", speed=1)
    assert emulator_of("another", speed=1) is None


# Each makes a provider that breaks one promise; the suite's test of that name has to fail.


def broken(
    get: Callable[[ScanDocuments, str], Any] | None = None, change: Mapping[str, Any] | None = None
) -> Connection:
    """A connection to a provider that changes each task, or looks it up in its own way."""

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


def reads_a_file(self: ScanDocuments, task_id: str) -> Flow[Task]:
    with open(__file__, encoding="utf-8") as file:  # noqa: PTH123  # what nobody should do
        file.read(1)
    return ScanDocuments.get(self, task_id)


def never_ends(self: ScanDocuments, _: str) -> Flow[Task]:
    while True:
        yield self.request("GET", "/again")


def indexes(self: ScanDocuments, task_id: str) -> Flow[Task]:
    response = yield self.request("GET", f"/tasks/{task_id}")
    return response.json()["nothing"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "connection"),
    [
        ("test_operations_are_flows_that_do_no_io_and_end", broken(reads_a_file)),
        ("test_operations_are_flows_that_do_no_io_and_end", broken(never_ends)),
        ("test_each_sample_gives_a_sound_task", broken(change={"result": TaskResult(text="x")})),
        ("test_each_sample_gives_a_sound_task", broken(change={"status": TaskStatus.FAILED})),
        ("test_each_sample_gives_a_sound_task", broken(change={"progress": 1.5})),
        ("test_each_sample_gives_a_sound_task", broken(change={"recognized": False})),
        ("test_each_sample_gives_a_sound_task", broken(change={"native_status": 7})),
        ("test_what_the_provider_claims_is_true", broken(change={"progress": 0.5})),
        ("test_what_the_provider_claims_is_true", broken(change={"reason": "partial"})),
        ("test_the_samples_show_both_ends", broken(change={"status": TaskStatus.PENDING})),
        ("test_a_new_word_is_processing_and_not_recognised", broken(change={"recognized": True})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_suite_catches_a_broken_promise(name: str, connection: Connection) -> None:
    suite = TestWithoutAnEmulator()
    with pytest.raises((AssertionError, NotImplementedError)):
        getattr(suite, name)(connection, SAMPLES)


def test_the_suite_catches_a_task_that_keeps_the_key() -> None:
    connection = broken(change={"raw": {"key": SETTINGS["api_key"]}})
    with pytest.raises(AssertionError, match="a credential is kept"):
        TestWithoutAnEmulator().test_no_task_keeps_a_credential(connection, SETTINGS, SAMPLES)


def test_the_suite_catches_a_provider_that_trips_over_an_answer() -> None:
    suite = TestWithoutAnEmulator()
    with pytest.raises(AssertionError):
        suite.test_an_unreadable_answer_is_a_contract_error(broken(indexes), SAMPLES, "an empty object", b"{}")


def test_the_suite_catches_a_provider_that_takes_any_id() -> None:
    def anything(self: ScanDocuments, _: str) -> Flow[Task]:
        response = yield self.request("GET", "/tasks/t1")
        return self.task(self.payload(response), "t1")

    connection = broken(anything)
    connection.provider.split_id = lambda _: (connection.provider.capabilities.kinds[0], "t1")  # type: ignore[assignment, method-assign]
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        TestWithoutAnEmulator().test_impossible_ids_are_refused_before_any_request(connection, "..")
