"""The provider and the emulator against a real docling-serve with real documents: ``make test-docling``.

The server runs from an environment of its own, whose Python is in DOCLING_PYTHON. It has no models and no network, so
documents are those that need neither, and every submission turns the models for tables and text in images off.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any, Final
from urllib.error import URLError
from urllib.request import Request, urlopen
from zipfile import ZipFile

import pytest
import taskbridge as tb
from taskbridge import aio
from taskbridge.testing import Emulator

from taskbridge_docling import Docling
from taskbridge_docling.emulator import DoclingEmulator

HERE: Final = Path(__file__).parent
KEY: Final = "a-key-for-this-run"
START_LIMIT: Final = 180.0  # seconds; on two busy cores it takes about 20
REMOVAL_DELAY: Final = 20  # seconds; the server's default is 300
WAIT: Final = 120.0  # seconds; a document takes milliseconds, but a busy server answers late
NO_MODELS: Final[Mapping[str, Any]] = {"do_ocr": False, "do_table_structure": False}

# A variable of the environment -> why. Without the third, even Markdown wants the weights of a layout model.
SERVER: Final[Mapping[str, str]] = {
    "DOCLING_SERVE_LOAD_MODELS_AT_BOOT": "false",
    "HF_HUB_OFFLINE": "1",
    "DOCLING_SERVE_DEFAULT_LAYOUT_PRESET": "docling_experimental_table_crops_layout",
    "DOCLING_SERVE_API_KEY": KEY,
    "DOCLING_SERVE_RESULT_REMOVAL_DELAY": str(REMOVAL_DELAY),
}
SENTENCE: Final = "Revenue rose by 4 percent."
DOCUMENTS: Final = ("notes.md", "page.html", "report.docx", "slides.pptx", "sheet.xlsx", "sums.csv")


def python() -> str:
    found = os.environ.get("DOCLING_PYTHON")
    assert found, "DOCLING_PYTHON must name the Python of an environment with docling-serve: run make test-docling"
    return found


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    subprocess.run([python(), str(HERE / "documents.py"), str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    command = [python(), str(HERE / "serve.py"), "run", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log.txt").open("w+b") as log:
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, **SERVER}, stdout=log, stderr=log)
        try:
            url, latest, pause = f"http://127.0.0.1:{port}", monotonic() + START_LIMIT, threading.Event()
            while not is_healthy(url):
                assert process.poll() is None, (folder / "log.txt").read_text(errors="replace")[-3000:]
                assert monotonic() < latest, "the server did not start in time"
                pause.wait(0.5)
            yield url
        finally:
            process.terminate()
            process.wait()


def is_healthy(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=5) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


def ask(server: str, path: str) -> Any:
    """Get a document from the server without taskbridge."""
    with urlopen(Request(f"{server}{path}", headers={"X-Api-Key": KEY}), timeout=60) as response:
        return json.load(response)


def settings(server: str) -> dict[str, Any]:
    return {"base_url": server, "api_key": KEY, "poll": {"interval": 0.2}, "request_timeout": 60}


@pytest.fixture
def client(server: str) -> Iterator[tb.Client]:
    with tb.connect(Docling, **settings(server)) as client:
        yield client


def submit(client: tb.Client, documents: Any, **options: Any) -> tb.Task:
    return client.submit("convert", documents, options={**NO_MODELS, **options})


def test_it_is_the_server_that_the_provider_was_written_for(server: str) -> None:
    versions = ask(server, "/version")
    print(f"\ndocling-serve {versions['docling-serve']}, docling-jobkit {versions['docling-jobkit']}")
    assert versions["docling-serve"] == "1.38.2"


# Real documents.


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_becomes_markdown(client: tb.Client, documents: Path, tmp_path: Path, name: str) -> None:
    task = client.wait(submit(client, documents / name), timeout=WAIT)
    assert (task.status, task.native_status, task.operation) == ("completed", "success", "convert")
    [path] = client.download(task, tmp_path)
    text = path.read_text(encoding="utf-8")
    assert path.name == f"{Path(name).stem}.md"
    assert SENTENCE in text
    assert "42" in text


def test_all_documents_at_once_with_asyncio(server: str, documents: Path) -> None:
    async def convert() -> list[str | None]:
        async with aio.connect(Docling, **settings(server)) as client:
            tasks = [await client.submit("convert", documents / name, options=NO_MODELS) for name in DOCUMENTS]
            outcomes = await client.wait_all(tasks, timeout=WAIT)
            results = [await client.result(outcome.unwrap()) for outcome in outcomes]
            return [result.text for result in results]

    texts = asyncio.run(convert())
    assert [SENTENCE in (text or "") for text in texts] == [True] * len(DOCUMENTS)


@pytest.mark.parametrize(("to", "start"), [("md", "# Q"), ("html", "<!DOCTYPE html>"), ("txt", "Q"), ("json", None)])
def test_each_neutral_format(client: tb.Client, documents: Path, to: str, start: str | None) -> None:
    result = client.result(client.submit("convert", documents / "notes.md", to=to, options=NO_MODELS), timeout=WAIT)
    if start is None:
        assert result.data["schema_name"] == "DoclingDocument"
    else:
        assert (result.text or "").startswith(start)


def test_text_is_extracted_plain_and_an_empty_document_has_an_empty_text(client: tb.Client, documents: Path) -> None:
    tasks = [
        client.submit("extract-text", documents / name, language="en", options=NO_MODELS)
        for name in ("report.docx", "empty.md")
    ]
    report, empty = (client.result(task, timeout=WAIT).text for task in tasks)
    assert (SENTENCE in (report or ""), "#" in (report or ""), empty) == (True, False, "")


def test_several_documents_are_one_archive_in_which_nothing_is_lost(
    client: tb.Client, documents: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.html").write_bytes((documents / "page.html").read_bytes())
    task = client.wait(submit(client, [documents / "notes.md", tmp_path / "notes.html"]), timeout=WAIT)
    [path] = client.download(task, tmp_path / "results")
    with ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["notes-2.md", "notes.md"]
        assert all(SENTENCE in archive.read(name).decode() for name in archive.namelist())


def test_a_bad_document_among_several_is_absent_from_the_archive(client: tb.Client, documents: Path) -> None:
    task = client.wait(submit(client, [documents / "corrupt.docx", documents / "notes.md"]), timeout=WAIT)
    assert task.result is not None
    assert (task.status, task.result.files[0].properties) == ("completed", {"names": ["notes.md"]})


# What goes wrong.


def test_a_corrupt_document_failed_although_its_task_is_a_success(
    client: tb.Client, server: str, documents: Path
) -> None:
    task = submit(client, documents / "corrupt.docx")
    with pytest.raises(tb.TaskFailed, match="could not load document") as caught:
        client.result(task, timeout=WAIT)
    assert caught.value.vendor_code == "backend_failure"
    assert ask(server, f"/v1/status/poll/{task.id}")["task_status"] == "success"


def test_a_url_on_this_computer_is_not_fetched(client: tb.Client) -> None:
    task = client.wait(submit(client, "http://127.0.0.1:9/a.md"), timeout=WAIT)
    assert task.error is not None
    assert (task.status, task.error.code) == ("failed", "source_unavailable")


def test_an_option_that_the_server_ignores_is_refused_here(client: tb.Client, server: str, documents: Path) -> None:
    boundary = "b"
    fields = 'name="do_table_structure"\r\n\r\nfalse', 'name="to_format"\r\n\r\nhtml'
    file = f'name="files"; filename="notes.md"\r\n\r\n{(documents / "notes.md").read_text()}'
    form = "".join(f"--{boundary}\r\nContent-Disposition: form-data; {part}\r\n" for part in (*fields, file))
    headers = {"X-Api-Key": KEY, "Content-Type": f"multipart/form-data; boundary={boundary}"}
    body = f"{form}--{boundary}--\r\n".encode()
    with urlopen(Request(f"{server}/v1/convert/file/async", body, headers), timeout=60) as response:
        task_id: str = json.load(response)["task_id"]
    assert (client.result(task_id, timeout=WAIT).text or "").startswith("# Q")  # Markdown, although HTML was meant
    with pytest.raises(tb.InvalidInput, match="did you mean 'to_formats'"):
        submit(client, documents / "notes.md", to_format="html")


def test_a_format_that_the_server_accepts_and_does_not_return(client: tb.Client, documents: Path) -> None:
    task = client.wait(submit(client, documents / "notes.md", to_formats=["yaml"]), timeout=WAIT)
    assert (task.status, task.result) == ("completed", None)
    with pytest.raises(tb.MalformedResponse, match="no result"):
        client.result(task)


def test_errors_have_the_words_of_the_server(client: tb.Client, server: str, documents: Path) -> None:
    note = documents / "notes.md"
    with pytest.raises(tb.InvalidRequest, match=r"body\.do_ocr: Input should be a valid boolean") as caught:
        submit(client, note, do_ocr="perhaps")
    assert caught.value.vendor_code == "bool_parsing"
    with pytest.raises(tb.InvalidRequest, match="Too many files: 4 exceeds the maximum of 3"):
        submit(client, [note] * 4)
    with pytest.raises(tb.TaskNotFound, match="Task not found"):
        client.get("521c05b3-a35c-448f-a732-5bb400f9d54a")
    with (
        tb.connect(Docling, base_url=server, api_key="a-wrong-key") as other,
        pytest.raises(tb.AuthenticationError, match="Unauthorized"),
    ):
        other.get("521c05b3-a35c-448f-a732-5bb400f9d54a")


def test_a_task_is_removed_after_its_result_was_read(client: tb.Client, documents: Path) -> None:
    task = client.wait(submit(client, documents / "notes.md"), timeout=WAIT)
    latest, pause, found = monotonic() + REMOVAL_DELAY + WAIT, threading.Event(), True
    while found and monotonic() < latest:
        pause.wait(1)
        try:
            client.get(task)
        except tb.TaskNotFound:
            found = False
    assert not found
    assert SENTENCE in (client.result(task).text or "")  # the task has it


# Callbacks, and the emulator.


def test_callbacks_are_unsigned_and_tell_no_end(server: str, documents: Path) -> None:
    secret, received, wanted = "a-secret-of-our-own", list[tuple[str, bytes]](), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            if len(received) >= 3:
                wanted.set()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its base has that name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{listener.server_address[1]}"
        with tb.connect(Docling, **settings(server), webhook_secrets=[secret]) as client:
            url = f"{address}/hook?key={secret}"
            task = client.submit("convert", documents / "notes.md", options=NO_MODELS, callback_url=url)
            assert wanted.wait(WAIT)
            events = [client.parse_webhook({}, body, url=f"{address}{path}") for path, body in received]
            assert {event.type for event in events} == {"set_num_docs", "document_completed", "update_processed"}
            assert {event.ref for event in events} == {task.ref}
            assert not any(event.task for event in events)
        listener.shutdown()


def outcomes(client: tb.Client, path_of: Callable[[str], Path]) -> dict[str, tuple[object, ...]]:
    """Submit what ends in different ways; return how."""
    submissions: dict[str, tuple[list[str], dict[str, Any]]] = {
        "one": (["notes.md"], {}),
        "one in an archive": (["notes.md"], {"target_type": "zip"}),
        "several": (["notes.md", "page.html"], {"to_formats": ["md", "json", "html", "text", "doctags", "doclang"]}),
        "corrupt": (["fail.docx"], {}),
        "corrupt in an archive": (["fail.docx"], {"target_type": "zip"}),
        "corrupt among several": (["fail.docx", "notes.md"], {}),
        "all of several corrupt": (["fail.docx", "fail.pptx"], {}),
        "stop at errors": (["fail.docx"], {"abort_on_error": True}),
        "unknown preset": (["notes.md"], {"layout_preset": "no-such-preset"}),
        "unknown suffix": (["notes.xyz"], {}),
        "no suffix": (["notes"], {}),
        "one text": (["notes.md"], {"to_formats": ["text"]}),
    }
    tasks = {
        label: submit(client, [path_of(name) for name in names], **options)
        for label, (names, options) in submissions.items()
    }
    ended: dict[str, tuple[object, ...]] = {}
    for label, outcome in zip(tasks, client.wait_all(list(tasks.values()), timeout=WAIT), strict=True):
        assert outcome.task is not None, outcome.error
        task = outcome.task
        names = [(file.name, file.properties) for file in task.result.files] if task.result else []
        error = task.error and (task.error.code, (task.error.message or "").partition(" ")[0])
        ended[label] = (task.status, task.reason, task.native_status, error, names, tuple(sorted(task.raw)))
    return ended


def test_the_emulator_ends_tasks_as_the_real_server_does(client: tb.Client, documents: Path, tmp_path: Path) -> None:
    def path_of(name: str) -> Path:
        path = tmp_path / name
        original = "corrupt.docx" if name.startswith("fail") else "page.html" if name == "page.html" else "notes.md"
        path.write_bytes((documents / original).read_bytes())
        return path

    with Emulator(vendors={"docling": DoclingEmulator}, speed=100) as emulator:
        own: dict[str, Any] = {**emulator.settings("docling"), "poll": {"interval": 0.05}}
        with tb.connect(Docling, **own) as emulated:
            expected = outcomes(emulated, path_of)
    assert outcomes(client, path_of) == expected
