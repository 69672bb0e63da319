"""A vendor whose status says only that the work has ended; how it ended is in the result, which lives 300 s after that.

Such a provider reads the result before it says *completed*. A result may also be empty: `run` and `compare` warn of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse

import taskbridge as tb
from taskbridge._config.defaults import override_defaults
from taskbridge.cli import main
from taskbridge.emulator import Emulator
from taskbridge.emulator.export import connections_toml
from taskbridge.emulator.helpers import JsonObject, to_json
from taskbridge.models import Reason, Task, TaskFailure, TaskResult, TaskStatus
from taskbridge.provider import Flow, Payload, StateTable, path_id
from taskbridge.testing import ProviderConformance

from .plain import STATES, PlainEmulator, PlainProvider, PlainTask, refuse

LIFE = 300.0  # vendor seconds that a task lives after its result was read

# Vendor's `verdict` in the result -> ours.
VERDICTS: Final[StateTable] = {
    "success": (TaskStatus.COMPLETED, None),
    "partial_success": (TaskStatus.COMPLETED, Reason.PARTIAL),
    "failure": (TaskStatus.FAILED, None),
}


class CarefulProvider(PlainProvider):
    """The status request of a task that has ended includes its result."""

    capabilities = replace(PlainProvider.capabilities, result_once=True)

    def get(self, task_id: str) -> Flow[Task]:
        status = self.payload((yield self.request("GET", f"/tasks/{path_id(task_id)}")))
        task = self.task(status, task_id)
        if self.state(STATES, task.native_status).status is not TaskStatus.COMPLETED or task.native_id != task_id:
            return task
        path = f"/tasks/{path_id(task_id)}/result"
        return self._with_verdict(task, self.payload((yield self.request("GET", path, read_once=True))))

    def _with_verdict(self, task: Task, result: Payload) -> Task:
        word = result.text("verdict")
        state = self.state(VERDICTS, word)
        text = result.maybe_text("text") if state.status is TaskStatus.COMPLETED else None
        failed = state.status is TaskStatus.FAILED
        return replace(
            task,
            status=state.status,
            reason=state.reason,
            recognized=state.recognized,
            native_status=word,
            error=TaskFailure(message=result.maybe_message("problem")) if failed else None,
            result=None if text is None else TaskResult(text=text),
            raw={**task.raw, "result": result.raw},
        )


class CarefulEmulator(PlainEmulator):
    """Ends every task with `done`; a document named `blank` has no words."""

    def calls(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [*super().calls(), ("GET", "/tasks/{id}/result", self.result)]

    def find(self, request: HttpRequest) -> PlainTask:
        task = super().find(request)
        if task.fetched_at is not None and self.host.clock.time() > task.fetched_at + LIFE:
            raise refuse(404, "no such task")
        return task

    def state(self, task: PlainTask) -> str:
        return super().state(task).replace("broken", "done")

    def show(self, task: PlainTask) -> JsonObject:
        return {"id": task.id, "state": self.state(task)}

    async def result(self, request: HttpRequest) -> HttpResponse:
        task = self.find(request)
        if self.state(task) != "done":
            raise refuse(404, "no result")
        task.fetched_at = task.fetched_at or self.host.clock.time()
        if task.life.plan.outcome == "failed":
            return to_json({"verdict": "failure", "text": None, "problem": "it cannot be read"})
        return to_json({"verdict": "success", "text": self.text(task)})

    def text(self, task: PlainTask) -> str:
        blank = any("blank" in (part.filename or "") for part in task.documents)
        return "" if blank else super().text(task)


class TestTheResultDecides(ProviderConformance):
    provider = CarefulProvider
    emulator_class = CarefulEmulator


class OtherProvider(CarefulProvider):
    """The same, under another name."""

    name = "other"


class OtherEmulator(CarefulEmulator):
    """The same, under another name."""

    name = "other"

    def mounts(self) -> Any:
        return {"other": super().mounts()["plain"]}

    def settings(self) -> Any:
        return {**super().settings(), "base_url": f"{self.host.base_url}/other/v1"}


@pytest.fixture
def vendors() -> Iterator[Emulator]:
    kinds: Any = {"plain": CarefulEmulator, "other": OtherEmulator}
    with (
        Emulator(vendors=kinds, speed=1000) as emulator,
        override_defaults(providers={"plain": CarefulProvider, "other": OtherProvider}),
    ):
        yield emulator


@pytest.fixture
def place(vendors: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tables = {name: {"provider": name, **vendors.settings(name)} for name in vendors.vendors}
    (tmp_path / "taskbridge.toml").write_text(connections_toml(tables), encoding="utf-8")
    (tmp_path / "in").mkdir()
    for name in ("blank.pdf", "full.pdf", "fail.pdf"):
        (tmp_path / "in" / name).write_bytes(b"%PDF")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TASKBRIDGE_CONFIG", raising=False)
    return tmp_path


def test_a_task_is_failed_if_its_result_says_so_and_its_result_is_read_once(vendors: Emulator) -> None:
    samples = vendors.samples("plain")
    with tb.connect("plain", **vendors.settings("plain")) as client:
        with pytest.raises(tb.TaskFailed, match="it cannot be read"):
            client.result(samples["failed"])
        assert client.get(samples["completed"]) == client.wait(samples["completed"])
    assert vendors.count("plain", path_contains="/result") == 2


def test_run_and_compare_warn_of_a_task_without_any_result(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--json", "--config", str(place / "taskbridge.toml")]
    main(["run", "extract-text", "in", "--to", "out", *words])
    *files, last = map(json.loads, capsys.readouterr().out.splitlines())
    found = {Path(each["file"]).name: (each["state"], each["warning"]) for each in files}
    empty = "the task completed without any result"
    assert found == {"blank.pdf": ("done", empty), "full.pdf": ("done", None), "fail.pdf": ("failed", None)}
    assert last
    main(["run", "extract-text", "in/blank.pdf", "--to", "again", *words[1:]])
    shown = capsys.readouterr()
    assert f"warning: {empty}" in shown.out
    assert "1 of 1 done, 1 without any result" in shown.err

    main(["compare", "plain", "other", "in/blank.pdf", "in/full.pdf", *words])
    blank, full, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert (blank["verdict"], blank["a"]["warning"], blank["b"]["warning"]) == ("neither", empty, empty)
    assert (full["verdict"], full["a"]["warning"]) == ("same", None)
    main(["compare", "plain", "other", "in/blank.pdf", *words[1:]])
    assert capsys.readouterr().out.count(f"warning: {empty}") == 2
