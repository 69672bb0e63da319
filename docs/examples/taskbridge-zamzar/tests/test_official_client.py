"""The official client, pointed at the emulator: all that it does with jobs and files works."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from taskbridge.testing import Emulator

zamzar: Any = importlib.import_module("zamzar")  # it has no types


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator("zamzar", speed=1000) as running:
        yield running


@pytest.fixture
def client(emulator: Emulator) -> Any:
    settings = emulator.settings()
    return zamzar.ZamzarClient(settings["api_key"], host=settings["base_url"])


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "letter.docx"
    path.write_bytes(b"a letter")
    return path


def test_the_key_is_accepted(client: Any) -> None:
    assert client.test_connection() == "Welcome to the Zamzar API"


def test_a_wrong_key_is_rejected(emulator: Emulator) -> None:
    client = zamzar.ZamzarClient("wrong", host=emulator.settings()["base_url"])
    with pytest.raises(zamzar.ApiException) as caught:
        client.jobs.find(1)
    assert caught.value.status == 401


def test_a_file_is_converted_stored_and_deleted(client: Any, document: Path, tmp_path: Path) -> None:
    job = client.convert(document, "pdf")
    assert (job.has_succeeded(), job.model.target_format) == (True, "pdf")
    job.store(tmp_path / "letter.pdf")
    assert (tmp_path / "letter.pdf").read_text() == "letter.docx as pdf\n"
    job.delete_all_files()
    with pytest.raises(zamzar.exceptions.NotFoundException):
        client.files.find(job.source_file_id)


def test_pages_are_also_in_an_archive(client: Any, document: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    client.convert(document, "png", options={"quality": 90}).store(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["letter-1.png", "letter-2.png", "letter.zip"]


def test_a_url_is_imported_and_converted(client: Any) -> None:
    job = client.convert("https://www.example.com/logo.png", "jpg")
    assert (job.has_succeeded(), job.model.source_file.name) == (True, "logo.png")


def test_an_export_is_awaited(client: Any, document: Path) -> None:
    job = client.convert(document, "pdf", export_url="s3://CREDENTIAL_NAME@my-bucket-name/letter.pdf")
    assert [export.status for export in job.model.exports] == ["successful"]


def test_a_failure_has_its_code(client: Any, emulator: Emulator) -> None:
    job = client.jobs.find(int(emulator.samples()["failed"]))
    assert (job.has_failed(), job.failure.code, job.failure.message) == (True, 3, "the file could not be converted")


def test_a_job_is_cancelled(client: Any, emulator: Emulator) -> None:
    number = int(emulator.samples()["processing"])
    assert client.jobs.cancel(number).model.status == "cancelled"
    assert client.jobs.find(number).model.status == "cancelled"


def test_jobs_are_listed_page_by_page(client: Any, emulator: Emulator) -> None:
    all_jobs = client.jobs.list()
    assert {job.id for job in all_jobs.items} == {int(number) for number in emulator.samples().values()}
    first = client.jobs.list(limit=2)
    second = first.next_page()
    assert [job.id for job in [*first.items, *second.items]] == [job.id for job in all_jobs.items][:4]
    assert [job.id for job in second.previous_page().items] == [job.id for job in first.items]
    assert all(job.has_succeeded() for job in client.jobs.successful.list().items)
