"""All of the published client's calls work with the emulator."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from taskbridge.emulator import Emulator
from taskbridge_cloudconvert.emulator import CloudConvertEmulator

cloudconvert: Any = importlib.import_module("cloudconvert")  # it has no types

JOB: dict[str, Any] = {
    "tag": "jobbuilder",
    "tasks": {
        "import-1": {"operation": "import/url", "url": "https://example.com/original.docx"},
        "task-1": {"operation": "convert", "input": "import-1", "output_format": "txt"},
        "export-1": {"operation": "export/url", "input": ["task-1"]},
    },
}


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator("cloudconvert", vendors={"cloudconvert": CloudConvertEmulator}, speed=1000) as running:
        cloudconvert.configure(
            api_key=running.settings()["api_key"],
            endpoint=f"{running.base_url}/cloudconvert",
            sync_endpoint=f"{running.base_url}/cloudconvert-sync",
        )
        yield running


def named(job: dict[str, Any], name: str) -> dict[str, Any]:
    return next(task for task in job["tasks"] if task["name"] == name)


def test_a_job_is_created_waited_for_and_downloaded(emulator: Emulator) -> None:
    job = cloudconvert.Job.create(JOB)
    assert job["status"] in ("waiting", "processing")  # vendor time runs meanwhile
    assert job["tag"] == "jobbuilder"
    job = cloudconvert.Job.wait(job["id"])
    assert job["status"] == "finished"
    (file,) = named(job, "export-1")["result"]["files"]
    assert requests.get(file["url"], timeout=5).text == "Text of original.docx\n"
    assert emulator.count(path_contains="/cloudconvert-sync/") == 1


def test_jobs_are_found_listed_and_deleted(emulator: Emulator) -> None:
    job = cloudconvert.Job.create(JOB)
    assert cloudconvert.Job.find(job["id"])["id"] == job["id"]
    assert cloudconvert.Job.show(job["id"])["id"] == job["id"]
    assert [other["id"] for other in cloudconvert.Job.all({"filter[tag]": "jobbuilder"})] == [job["id"]]
    assert len(cloudconvert.Job.all()) == 6
    assert cloudconvert.Job.delete(job["id"]) is True
    assert cloudconvert.Job.find(job["id"])["code"] == "NOT_FOUND"
    assert emulator.requests[-2].status == 204


@pytest.mark.usefixtures("emulator")
def test_tasks_are_created_waited_for_listed_and_deleted() -> None:
    first = cloudconvert.Task.create("import/url", {"url": "https://example.com/a.docx"})
    second = cloudconvert.Task.create("export/url", {"input": first["id"]})
    assert cloudconvert.Task.wait(second["id"])["status"] == "finished"
    assert cloudconvert.Task.find(second["id"])["result"]["files"][0]["filename"] == "a.docx"
    found = cloudconvert.Task.all({"filter[operation]": "import/url", "per_page": 1})
    assert [task["id"] for task in found] == [first["id"]]
    assert cloudconvert.Task.delete(second["id"]) is True
    assert cloudconvert.Task.show(second["id"])["code"] == "NOT_FOUND"


def test_a_task_is_cancelled_and_retried(emulator: Emulator) -> None:
    running = emulator.samples()["processing"]
    assert cloudconvert.Task.cancel(running) is True
    assert cloudconvert.Task.find(running)["code"] == "CANCELLED"
    again = cloudconvert.Task.retry(running)
    assert again["retry_of_task_id"] == running
    assert re.fullmatch(r"[0-9a-f-]{36}", again["id"])


@pytest.mark.usefixtures("emulator")
def test_cancelling_an_ended_task_is_refused() -> None:
    task = cloudconvert.Task.create("import/raw", {"file": "hi", "filename": "a.txt"})
    cloudconvert.Task.wait(task["id"])
    with pytest.raises(cloudconvert.exceptions.ResourceInvalid):
        cloudconvert.Task.cancel(task["id"])


@pytest.mark.usefixtures("emulator")
def test_a_file_is_uploaded(tmp_path: Path) -> None:
    path = tmp_path / "input.pdf"
    path.write_bytes(b"%PDF-1.4\r\n--boundary\r\n\x00\xff")
    task = cloudconvert.Task.create("import/upload", {})
    assert cloudconvert.Task.upload(str(path), task) is True
    done = cloudconvert.Task.wait(task["id"])
    assert (done["status"], done["result"]["files"]) == ("finished", [{"filename": "input.pdf", "size": 24}])


@pytest.mark.usefixtures("emulator")
def test_this_client_returns_the_error_body_for_a_wrong_key(emulator: Emulator) -> None:
    cloudconvert.configure(api_key="wrong", endpoint=f"{emulator.base_url}/cloudconvert")
    assert cloudconvert.Task.find(emulator.samples()["completed"])["code"] == "UNAUTHENTICATED"
