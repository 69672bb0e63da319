"""Which parts of a result become files, for each emulated vendor, and tasks without a result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import taskbridge as tb
from taskbridge.models import Task, TaskFile, TaskResult
from taskbridge.provider.results import GeneratedFile, as_json, as_text, generated_files
from taskbridge.testing import Emulator
from taskbridge.testing.conformance.samples import connection_of

Maker = Callable[..., Any]

DAY = 86_400.0


def names(paths: tuple[Path, ...]) -> list[str]:
    return [path.name for path in paths]


@pytest.mark.parametrize(
    ("form", "suffix"), [("plain", ".txt"), ("markdown", ".md"), ("html", ".html"), ("json", ".json")]
)
def test_text_from_scan_documents_gets_the_suffix_of_its_format(
    form: str, suffix: str, both: Maker, tmp_path: Path, png: bytes
) -> None:
    client = both("scan-documents")
    schema = {"schema": {"type": "object"}} if form == "json" else {}
    task = client.finished_task("extract-text", png, format=form, **schema)
    (path,) = client.download(task.ref, tmp_path)
    assert path.name == f"{task.native_id}{suffix}"
    assert path.read_text(encoding="utf-8") == task.result.text


def test_detected_documents_of_scan_documents_are_data(both: Maker, tmp_path: Path, png: bytes) -> None:
    client = both("scan-documents")
    task = client.finished_task("native:detect-documents", png)
    (path,) = client.download(task, tmp_path)
    assert path.name == f"{task.native_id}.json"
    assert json.loads(path.read_bytes()) == task.result.data


def test_export_data_of_smartdocumentor_is_a_file_named_by_its_number(both: Maker, tmp_path: Path) -> None:
    client = both("smartdocumentor")
    task = client.finished_task()
    (path,) = client.download(task, tmp_path)
    assert path.name == f"{task.native_id}.json"
    assert json.loads(path.read_bytes()) == client.result(task).data
    assert names(client.download(f"external/{task.external_id}", tmp_path / "again")) == [path.name]


def test_a_layout_of_expert_ai_is_text_data_and_words(both: Maker, tmp_path: Path) -> None:
    client = both("expertai-extract")
    task = client.finished_task()
    text, data, words = client.download(task, tmp_path)
    result = client.result(task)
    assert names((text, data, words)) == [f"{task.id}{suffix}" for suffix in (".txt", ".json", ".words.json")]
    assert text.read_text(encoding="utf-8") == result.text
    assert json.loads(data.read_bytes()) == result.data
    pages = json.loads(words.read_bytes())
    assert len(pages) == len(result.data["words"])
    assert all(word.keys() == {"text", "element", "box"} for page in pages for word in page)
    assert all(word["text"] in result.text for page in pages for word in page)


def a_task(native_id: str | int) -> Task:
    return Task(
        provider="x",
        connection="x",
        id=str(native_id),
        native_id=native_id,
        status=tb.TaskStatus.COMPLETED,
        observed_at=datetime.now(UTC),
    )


def test_words_that_cannot_be_read_lose_nothing_else() -> None:
    provider = connection_of("expertai-extract", {"access_token": "a-token"}).provider
    good = "H4sIAK+FKGIC/ytJLS5hYGJgYEgB4lQgrgHiIiAGAEjL9hsZAAAA"  # the vendor's sample
    files = provider.result_files(a_task("t-1"), TaskResult(data={"words": [good, "no", 7]}, text="test"))
    assert [each.name for each in files] == ["t-1.txt", "t-1.json", "t-1.words.json"]
    assert isinstance(files[-1], GeneratedFile)
    pages: Any = json.loads(files[-1].content)
    assert [page is None for page in pages] == [False, True, True]
    assert pages[0][0]["text"] == "test"


def test_a_jobs_text_is_fetched_once(both: Maker, tmp_path: Path, own_vendors: Emulator) -> None:
    client = both("cloudconvert")
    task = client.finished_task("extract-text", b"%PDF-1.4\n")
    before = own_vendors.count("cloudconvert", "GET", "storage")
    (path,) = client.download(task, tmp_path)
    assert path.suffix == ".txt"
    assert path.read_text(encoding="utf-8") == "Text of document.pdf\n"
    assert own_vendors.count("cloudconvert", "GET", "storage") - before <= 1


def test_a_metadata_task_gives_its_data_as_a_file(both: Maker, tmp_path: Path, own_vendors: Emulator) -> None:
    client = both("cloudconvert")
    task = client.get(own_vendors.samples("cloudconvert")["metadata"])
    (path,) = client.download(task, tmp_path)
    assert json.loads(path.read_bytes()) == task.result.data


def test_a_task_that_is_not_an_export_has_no_links(both: Maker, tmp_path: Path) -> None:
    client = both("cloudconvert")
    job = client.finished_task()
    work = next(each for each in job.subtasks if each.operation == "convert")
    with pytest.raises(tb.UnsupportedFeature, match="export/url"):
        client.download(work, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_files_with_the_same_name_are_numbered_and_progress_adds_up(both: Maker, tmp_path: Path, progress: Any) -> None:
    client = both("cloudconvert")
    tasks = {
        **{
            f"import-{n}": {"operation": "import/raw", "file": "x" * n * 1000, "filename": name}
            for n, name in enumerate(["a.txt", "A.txt", "b.txt"], 1)
        },
        "export": {"operation": "export/url", "input": ["import-1", "import-2", "import-3"]},
    }
    job = client.wait(client.submit("native:jobs", options={"tasks": tasks}))
    export = next(each for each in job.subtasks if each.operation == "export/url")
    paths = client.download(export, tmp_path, on_progress=progress)
    assert sorted(names(paths)) == ["A-2.txt", "a.txt", "b.txt"]
    assert sorted(path.stat().st_size for path in paths) == [1000, 2000, 3000]
    assert progress == sorted(progress)
    assert {total for _, total in progress} == {6000}
    assert progress[-1] == (6000, 6000)


def test_an_expired_link_is_an_error_that_says_so(both: Maker, tmp_path: Path, own_vendors: Emulator) -> None:
    client = both("cloudconvert")
    task = client.finished_task()
    own_vendors.clock.advance(DAY + 60)
    with pytest.raises(tb.PermissionDenied, match=r"links of CloudConvert live 24 hours, this one until 20") as caught:
        client.download(task.result.files[0], tmp_path)
    assert not caught.value.retryable
    with pytest.raises(tb.PermissionDenied, match="CloudConvert no longer has the task either"):
        client.download(task, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_deleted_is_not_found(both: Maker, tmp_path: Path) -> None:
    client = both("cloudconvert")
    task = client.finished_task()
    client.delete(task)
    with pytest.raises(tb.TaskNotFound):
        client.download(task.result.files[0], tmp_path)


def test_a_failed_file_leaves_the_earlier_ones(both: Maker, tmp_path: Path) -> None:
    client = both("scan-documents")
    task = client.finished_task()
    lost = TaskFile(id="file_unknown", name="lost.png")
    both_files = TaskResult(files=(*task.result.files, lost))
    with pytest.raises(tb.TaskNotFound) as caught:
        client.download(replace(task, result=both_files), tmp_path)
    assert caught.value.ref == task.ref
    assert [path.name for path in tmp_path.iterdir()] == [task.result.files[0].name]


def test_a_failed_task_has_nothing_to_download(both: Maker, tmp_path: Path, own_vendors: Emulator) -> None:
    for vendor in ("cloudconvert", "scan-documents", "smartdocumentor", "expertai-extract"):
        with pytest.raises(tb.TaskFailed):
            both(vendor).download(own_vendors.samples(vendor)["failed"], tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_download_does_not_wait_for_a_running_task(both: Maker, tmp_path: Path, own_vendors: Emulator) -> None:
    client = both("scan-documents")
    task_id = own_vendors.samples("scan-documents")["processing"]
    with pytest.raises(tb.WaitTimeout, match="still running") as caught:
        client.download(task_id, tmp_path / "none")
    assert caught.value.task is not None
    assert own_vendors.count("scan-documents", "GET", task_id) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [0, 10])
def test_max_bytes_applies_to_generated_files_too(limit: int, both: Maker, tmp_path: Path) -> None:
    client = both("smartdocumentor")
    task = client.finished_task()
    with pytest.raises(tb.ResponseTooLarge, match="max_bytes"):
        client.download(task, tmp_path, max_bytes=limit)
    assert list(tmp_path.iterdir()) == []


def test_an_async_on_progress_is_refused(both: Maker, tmp_path: Path) -> None:
    async def on_progress(_done: int, _total: int | None) -> None:
        raise AssertionError

    with pytest.raises(tb.InvalidInput, match="plain function"):
        both("scan-documents").download("task_1", tmp_path, on_progress=on_progress)


def test_a_ref_of_another_connection_is_refused(both: Maker, tmp_path: Path) -> None:
    with pytest.raises(tb.InvalidTaskId):
        both("scan-documents").download(tb.TaskRef("elsewhere:task_1"), tmp_path)


# Without a client.


def test_an_empty_result_generates_no_files() -> None:
    assert generated_files(a_task(44), TaskResult()) == ()
    assert [each.name for each in generated_files(a_task(44), TaskResult(text="", data=[]))] == ["44.txt", "44.json"]


def test_characters_that_utf_8_cannot_encode_are_replaced() -> None:
    assert as_text("a\ud800b") == b"a?b"
    assert json.loads(as_json({"a": "\ud800", "b": "é"})) == {"a": "\ud800", "b": "é"}
    assert as_json({"b": "é"}) == '{"b": "é"}\n'.encode()
