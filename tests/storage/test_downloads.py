"""Results are saved in S3, whole or not at all, and read without a path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import taskbridge as tb
from taskbridge.provider.http import Request, Response
from taskbridge.testing import Emulator, ScriptedTransport

from .conftest import PNG, Bucket, Open

FILE = tb.TaskFile(id="f1", name="page.png", url="https://files.test/page.png?sig=secret-of-a-link", size=4)


def finished(client: Any, operation: str = "convert", given: bytes = PNG, **options: Any) -> tb.Task:
    """A task that has ended."""
    task: tb.Task = client.wait(client.submit(operation, given, name="page.png", **options), timeout=30)
    return task


def file_of(task: tb.Task) -> tb.TaskFile:
    """The one file of its result."""
    return task.result.files[0] if task.result else tb.TaskFile()


def test_results_are_saved_in_a_storage(connect: Open, bucket: Bucket) -> None:
    client = connect("scan-documents")
    task = finished(client, to="jpg")
    file = file_of(task)
    content = client.read(file)
    (saved,) = client.download(task, f"{bucket.url}/out/")
    assert isinstance(saved, tb.StorageUrl)
    assert saved == f"{bucket.url}/out/{saved.name}"
    others = [
        client.download(file, bucket.url),  # a bucket is a folder
        client.download(file, f"{bucket.url}/folder/"),
        client.download(file, f"{bucket.url}/copy"),
    ]
    assert others == [f"{bucket.url}/{saved.name}", f"{bucket.url}/folder/{saved.name}", f"{bucket.url}/copy"]
    assert {bucket.read(each) for each in (saved, *others)} == {content}
    text = finished(client, "extract-text")
    (generated,) = client.download(text, f"{bucket.url}/text")
    assert bucket.read(generated).decode() == (text.result and text.result.text)


def test_an_existing_object_is_kept_unless_overwrite_is_set(
    connect: Open, bucket: Bucket, own_vendors: Emulator
) -> None:
    client = connect("scan-documents")
    task = finished(client, to="jpg")
    file = file_of(task)
    url = bucket.put("mine", b"mine")
    with pytest.raises(FileExistsError, match="overwrite=True replaces it") as caught:
        client.download(file, url)
    assert caught.value.filename == url
    assert own_vendors.count("scan-documents", "GET", "download") == 0
    late = f"{bucket.url}/late"

    def appear(done: int, total: int | None) -> None:
        del done, total
        bucket.put("late", b"mine")

    with pytest.raises(FileExistsError):  # it appears during the download: the storage itself refuses
        client.download(file, late, on_progress=appear)
    assert bucket.read(url) == bucket.read(late) == b"mine"
    assert client.download(file, url, overwrite=True) == url
    assert bucket.read(url) == client.read(file)


def test_nothing_is_left_of_a_broken_download(connect: Open, bucket: Bucket, tmp_path: Path) -> None:
    client = connect("scan-documents")
    task = finished(client, to="jpg")

    def break_off(done: int, total: int | None) -> None:
        raise ZeroDivisionError(done, total)

    with pytest.raises(tb.ResponseTooLarge):
        client.download(task, f"{bucket.url}/out", max_bytes=3)
    with pytest.raises(ZeroDivisionError):
        client.download(task, f"{bucket.url}/out", on_progress=break_off)
    with pytest.raises(FileNotFoundError, match="no-such-bucket"):
        client.download(task, "s3://no-such-bucket/out")
    assert bucket.keys == []
    for wrong in ("ftp://host/x", "https://host/x", "s3://k:hunter2@b/x", "s3://b/x?y"):
        with pytest.raises(tb.InvalidInput):
            client.download(task, wrong)
    assert list(tmp_path.iterdir()) == []


# Without a path.


def test_a_file_is_read_without_a_path(connect: Open, tmp_path: Path) -> None:
    client = connect("scan-documents")
    task = finished(client, to="jpg")
    file = file_of(task)
    saved: bytes = client.download(file, tmp_path / "saved").read_bytes()
    assert client.read(file) == saved
    assert len(saved) > 4
    with client.open(file) as stream:
        assert (stream.read(4), stream.seek(0), stream.read(), stream.read()) == (saved[:4], 0, saved, b"")
        (path,) = Path(stream.name).parent.iterdir()
        assert path.read_bytes() == saved
    assert not path.parent.exists()
    for call in (client.read, client.open):
        with pytest.raises(tb.ResponseTooLarge, match="max_bytes"):
            call(file, max_bytes=3)
        with pytest.raises(tb.InvalidInput, match="one file of a result is wanted"):
            call(task)
        with pytest.raises(tb.InvalidInput, match="max_bytes must be"):
            call(file, max_bytes=-1)


@pytest.mark.parametrize(
    ("body", "url", "error"),
    [
        (b"abc", FILE.url, tb.TruncatedResponse),
        (b"abcde", FILE.url, tb.MalformedResponse),
        (b"abcd", "https://10.0.0.7/page.png", tb.MalformedResponse),
        (b"abcd", "http://files.test/page.png", tb.MalformedResponse),
    ],
    ids=["too short", "too long", "a private address", "plain http"],
)
def test_reading_has_the_rules_of_downloads(body: bytes, url: str, error: type[tb.TaskbridgeError]) -> None:
    def answer(request: Request) -> Response:
        assert request.public_only
        assert not request.authorized
        return Response(200, {"content-length": str(len(body))}, body)

    transport = ScriptedTransport(answer)
    file = tb.TaskFile(id="f1", name="page.png", url=url, size=4)
    with tb.connect("cloudconvert", api_key="a-key-of-tests", transport=transport, retry={"attempts": 1}) as client:
        for call in (client.read, client.open):
            with pytest.raises(error) as caught:
                call(file)
            assert "secret-of-a-link" not in f"{caught.value} {caught.value!r} {caught.value.__dict__}"
        with pytest.raises(tb.UnsupportedFeature, match="download"):
            client.read(tb.TaskFile(name="page.png"))


def test_documents_of_a_storage_are_too_large_before_they_are_fetched(bucket: Bucket) -> None:
    def answer(request: Request) -> Response:
        raise AssertionError(request)

    url = bucket.put("large.png", PNG + bytes(10_485_760))
    transport, words = ScriptedTransport(answer), r"large.png has \d+ bytes; Scan Documents takes documents of at most"
    with (
        tb.connect("scan-documents", api_key="a-key-of-tests", transport=transport) as client,
        pytest.raises(tb.InvalidInput, match=words),
    ):
        client.submit("extract-text", url)
