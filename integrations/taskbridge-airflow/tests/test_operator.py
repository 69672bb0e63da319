"""The operator and the sensor, between two calls of Airflow; `test_real_airflow.py` runs them in Airflow itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSensorTimeout, TaskDeferred

import taskbridge as tb
from taskbridge.emulator import Plan
from taskbridge.testing import Emulator
from taskbridge_airflow.hooks import TaskbridgeHook
from taskbridge_airflow.operators import TaskbridgeOperator
from taskbridge_airflow.sensors import TaskbridgeSensor
from taskbridge_airflow.triggers import TaskbridgeTrigger


class Killed(BaseException):
    """Ends a try, as a signal does."""


class State:
    """The task state store of one task instance; it outlives a try. Kills the try before, or after, its n-th write."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.kill_at: int | None = None

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        if self.kill_at is not None:
            self.kill_at -= 1
            if self.kill_at < 0:
                self.kill_at = None
                raise Killed
        self.values[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self.values.pop(key, None)


class TaskInstance:
    def __init__(self) -> None:
        self.xcom: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcom[key] = value


def attempt(operator: Any, state: State | None = None) -> Any:
    """Run a try: execute, the trigger if it defers, and what follows it, in another copy of the operator."""
    context: Any = {"ti": TaskInstance()}
    if state is not None:
        context["task_state_store"] = state
    try:
        return operator.execute(context)
    except TaskDeferred as deferred:
        _, arguments = deferred.trigger.serialize()
        method = deferred.method_name

    async def fire() -> Mapping[str, Any]:
        trigger = TaskbridgeTrigger(**json.loads(json.dumps(arguments)))
        (payload,) = [event.payload async for event in trigger.run()]
        found: Mapping[str, Any] = json.loads(json.dumps(payload))
        return found

    event = asyncio.run(fire())
    assert context["ti"].xcom.get("ref") in (None, event["ref"])
    return getattr(operator, method)({**context, "ti": TaskInstance()}, event)


def convert(conn_id: str, document: Path, **arguments: Any) -> TaskbridgeOperator:
    given = {"operation": "convert", "to": "docx", **arguments}
    return TaskbridgeOperator(task_id="convert", document=str(document), taskbridge_conn_id=conn_id, **given)


def submissions(emulator: Emulator) -> int:
    return emulator.count("cloudconvert", "POST", "/jobs")


@pytest.mark.parametrize("deferrable", [True, False])
def test_it_submits_waits_and_downloads(
    deferrable: bool, connect: Callable[..., str], document: Path, tmp_path: Path
) -> None:
    operator = convert(connect(), document, download_to=str(tmp_path / "results"), deferrable=deferrable)
    result = attempt(operator, State())
    assert result["ref"].startswith("cloudconvert:job/")
    assert result["task"]["status"] == "completed"
    assert [Path(each).name for each in result["files"]] == ["report.docx"]
    assert all(Path(each).stat().st_size for each in result["files"])
    assert "http://" not in json.dumps(result)


def test_results_go_into_a_storage_too(connect: Callable[..., str], document: Path) -> None:
    result = attempt(convert(connect(), document, download_to="memory://results/airflow"), State())
    assert result["files"] == ["memory://results/airflow/report.docx"]


def test_options_of_the_vendor_and_several_documents(connect: Callable[..., str], document: Path) -> None:
    other = document.with_name("other.pdf")
    other.write_bytes(b"%PDF-1.7")
    operator = TaskbridgeOperator(
        task_id="merge",
        operation="merge",
        document=[str(document), str(other)],
        options={"output_format": "pdf"},
        external_id="INV-7",
        taskbridge_conn_id=connect(),
    )
    result = attempt(operator)
    assert result["files"] == []
    assert result["task"]["external_id"] == "INV-7"


def test_a_failed_task_fails_and_a_retry_submits_again(
    connect: Callable[..., str], emulator: Emulator, document: Path
) -> None:
    emulator.plan_next("cloudconvert", *[Plan(outcome="failed")] * 3)
    operator, state = convert(connect(), document), State()
    with pytest.raises(AirflowException, match="the task failed"):
        attempt(operator, state)
    emulator.vendors["cloudconvert"].host.next_plans.clear()
    assert attempt(operator, state)["task"]["status"] == "completed"
    assert submissions(emulator) == 2


def test_the_wait_has_a_deadline_and_a_retry_continues(
    connect: Callable[..., str], emulator: Emulator, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge_airflow.triggers._LEAST_WAIT", 0.2)
    emulator.plan_next("cloudconvert", *[Plan(queued=0, working=30.0)] * 3)
    state = State()
    for deferrable in (True, False):
        with pytest.raises(AirflowException, match=r"WaitTimeout.*processing"):
            attempt(convert(connect(), document, wait_timeout=0.2, deferrable=deferrable), state)
    assert attempt(convert(connect(), document), state)["task"]["status"] == "completed"
    assert submissions(emulator) == 1


# Tries that are killed.


def test_a_try_killed_before_it_submits_submits_once(
    connect: Callable[..., str], emulator: Emulator, document: Path
) -> None:
    operator, state = convert(connect(), document), State()
    state.kill_at = 0
    with pytest.raises(Killed):
        attempt(operator, state)
    assert submissions(emulator) == 0
    assert attempt(operator, state)["task"]["status"] == "completed"
    assert submissions(emulator) == 1


@pytest.mark.parametrize(
    ("vendor", "operation", "path"),
    [("cloudconvert", "convert", "/jobs"), ("scan-documents", "extract-text", "/extract-text")],
)
def test_a_try_killed_after_it_submitted_is_found_again(
    vendor: str, operation: str, path: str, connect: Callable[..., str], emulator: Emulator, tmp_path: Path
) -> None:
    document = tmp_path / "page.png"
    document.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    arguments = {"to": "pdf"} if operation == "convert" else {"to": None}
    operator, state = convert(connect(vendor), document, operation=operation, **arguments), State()
    state.kill_at = 1  # the response is there, and nothing knows of it
    with pytest.raises(Killed):
        attempt(operator, state)
    assert attempt(operator, state)["task"]["status"] == "completed"
    assert [each.method for each in emulator.requests if each.path.endswith(path)].count("POST") == 1


def test_a_try_killed_after_its_end_continues_with_the_same_task(
    connect: Callable[..., str], emulator: Emulator, document: Path, tmp_path: Path
) -> None:
    operator, state = convert(connect(), document, download_to=str(tmp_path / "results")), State()
    state.kill_at = 2
    with pytest.raises(Killed):
        attempt(operator, state)
    assert [Path(each).name for each in attempt(operator, state)["files"]] == ["report.docx"]
    assert submissions(emulator) == 1


def test_a_vendor_that_cannot_be_searched_needs_a_person(
    connect: Callable[..., str], emulator: Emulator, document: Path
) -> None:
    state, name = State(), "native:layout-document-async"
    conn_id = connect("expertai-extract")
    state.kill_at = 1
    with pytest.raises(Killed):
        attempt(convert(conn_id, document, operation=name, to=None), state)
    with pytest.raises(AirflowFailException, match="look in the vendor's own account"):
        attempt(convert(conn_id, document, operation=name, to=None), state)
    again = convert(conn_id, document, operation=name, to=None, resubmit_uncertain=True)
    assert attempt(again, state)["task"]["status"] == "completed"
    assert sum(each.method == "POST" and "layout" in each.path for each in emulator.requests) == 2


def test_a_submission_that_is_not_found_counts_as_not_accepted_after_a_while(
    connect: Callable[..., str], emulator: Emulator, document: Path
) -> None:
    state = State()
    emulator.fail_next(504, method="POST")  # a gateway answers: the submission did not arrive
    with pytest.raises(tb.SubmitUncertain):
        attempt(convert(connect(), document), state)
    with pytest.raises(tb.SubmitUncertain, match="retry_delay"):
        attempt(convert(connect(), document), state)
    assert attempt(convert(connect(), document, settle=0.0), state)["task"]["status"] == "completed"


def test_a_refusal_leaves_nothing_to_search_for(
    connect: Callable[..., str], emulator: Emulator, document: Path
) -> None:
    state = State()
    emulator.fail_next(422, method="POST")
    with pytest.raises(tb.InvalidRequest):
        attempt(convert(connect(), document), state)
    assert state.values == {}
    assert attempt(convert(connect(), document), state)["task"]["status"] == "completed"


def test_clearing_a_run_that_succeeded_submits_again(
    connect: Callable[..., str], emulator: Emulator, document: Path
) -> None:
    operator, state = convert(connect(), document), State()
    assert attempt(operator, state)["ref"] != attempt(operator, state)["ref"]
    assert submissions(emulator) == 2


def test_a_task_that_is_gone_is_submitted_again(
    connect: Callable[..., str], emulator: Emulator, document: Path
) -> None:
    state = State()
    state.set("taskbridge", {"ref": "cloudconvert:job/00000000-0000-0000-0000-000000000000", "at": 0.0})
    assert attempt(convert(connect(), document), state)["task"]["status"] == "completed"
    assert submissions(emulator) == 1


def test_a_task_that_is_not_shown_yet_is_not_submitted_again(
    connect: Callable[..., str], emulator: Emulator, document: Path
) -> None:
    state = State()
    ref = submit(connect())
    state.set("taskbridge", {"ref": ref, "at": datetime.now(UTC).timestamp()})
    emulator.fail_next("not-found", method="GET")
    assert attempt(convert(connect(), document), state)["ref"] == ref
    assert submissions(emulator) == 1


def test_killing_it_cancels_the_task_if_asked_for(
    connect: Callable[..., str], emulator: Emulator, document: Path
) -> None:
    for cancel, status in ((False, "completed"), (True, "failed")):
        operator = convert(connect(), document, cancel_on_kill=cancel)
        operator.on_kill()  # before it has submitted
        context: Any = {"ti": TaskInstance()}
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context)
        assert deferred.value.trigger.cancel_on_kill is cancel
        operator.on_kill()
        with TaskbridgeHook(connect()).get_conn() as client:
            assert client.wait(context["ti"].xcom["ref"], timeout=30).status == status
    assert submissions(emulator) == 2


# The sensor.


def submit(conn_id: str) -> str:
    with TaskbridgeHook(conn_id).get_conn() as client:
        return str(client.submit("convert", b"%PDF-1.7", to="docx", name="a.pdf").ref)


@pytest.mark.parametrize("deferrable", [True, False])
def test_the_sensor_waits_for_a_task(deferrable: bool, connect: Callable[..., str]) -> None:
    conn_id = connect()
    ref = submit(conn_id)
    sensor = TaskbridgeSensor(
        task_id="wait", ref=ref, taskbridge_conn_id=conn_id, deferrable=deferrable, poke_interval=0.1
    )
    task = attempt(sensor)
    assert (task["status"], task["result"]["files"][0]["name"]) == ("completed", "a.docx")


@pytest.mark.parametrize("deferrable", [True, False])
def test_the_sensor_fails_with_the_task_and_when_its_time_is_over(
    deferrable: bool, connect: Callable[..., str], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge_airflow.triggers._LEAST_WAIT", 0.2)
    conn_id = connect()

    def sensor(ref: str, timeout: float) -> TaskbridgeSensor:
        return TaskbridgeSensor(
            task_id="wait",
            ref=ref,
            taskbridge_conn_id=conn_id,
            deferrable=deferrable,
            poke_interval=0.1,
            timeout=timeout,
        )

    emulator.plan_next("cloudconvert", *[Plan(outcome="failed")] * 3)
    with pytest.raises(AirflowException, match="the task failed"):
        attempt(sensor(submit(conn_id), 60))
    emulator.vendors["cloudconvert"].host.next_plans.clear()
    emulator.plan_next("cloudconvert", *[Plan(outcome="stuck")] * 3)
    with pytest.raises(AirflowSensorTimeout):
        attempt(sensor(submit(conn_id), 0.3))


def test_a_poke_that_the_vendor_cannot_answer_now_is_repeated(connect: Callable[..., str], emulator: Emulator) -> None:
    conn_id = connect(retry={"attempts": 1})
    ref = submit(conn_id)
    emulator.fail_next(503, method="GET", times=2)
    sensor = TaskbridgeSensor(task_id="wait", ref=ref, taskbridge_conn_id=conn_id, deferrable=False, poke_interval=0.1)
    assert attempt(sensor)["status"] == "completed"
