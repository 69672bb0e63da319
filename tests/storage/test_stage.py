"""Documents for a vendor that takes only URLs are staged in S3, and removed once they are not needed any more."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from fsspec.implementations.memory import MemoryFileSystem

import taskbridge as tb
from taskbridge.errors import SubmitUncertain
from taskbridge.provider.http import Request, Response
from taskbridge.testing import Emulator, RecordingTransport, ScriptedTransport

from .conftest import FSSPEC, PDF, PNG, Bucket, Open

VENDOR = "smartdocumentor"


def link_of(vendors: Emulator, task: tb.Task) -> str:
    """The link that the vendor got."""
    vendor: Any = vendors.vendors[VENDOR]
    return str(vendor._tasks[task.native_id].url)


def scripted(answer: Callable[[Request], Response], **settings: Any) -> tb.Client:
    fixed: dict[str, Any] = {"access_token": "a-token-of-tests", "base_url": "https://vendor.test/api"}
    return tb.connect(VENDOR, transport=ScriptedTransport(answer), **{**fixed, **settings})


def refusing(request: Request) -> Response:
    """A vendor that refuses, and repeats the link that it got."""
    link = json.loads(request.body or b"{}")["context"]["url"] if isinstance(request.body, bytes) else ""
    return Response(400, {}, json.dumps({"title": f"cannot fetch {link}", "detail": {"url": link}}).encode())


def test_a_local_document_is_handed_over_by_a_signed_link(
    connect: Open, bucket: Bucket, own_vendors: Emulator, tmp_path: Path
) -> None:
    client = connect(VENDOR, stage=f"{bucket.url}/in/", stage_ttl=600)
    path = tmp_path / "Rechnung Nr. 7 ä.pdf"
    path.write_bytes(PDF)
    own_vendors.clock.speed = 1
    assert client.client.capabilities.inputs == {"url", "path", "bytes", "stream"}
    assert client.can("extract-text", str(path))
    tasks = [
        client.submit("extract-text", given, external_id=f"INV-{number}", name=name)
        for number, (given, name) in enumerate([(path, None), (PDF, "b.pdf"), (io.BytesIO(PDF), "c.pdf")])
    ]
    assert [key.rpartition("/")[2] for key in sorted(bucket.keys, key=lambda key: key[-5:])] == [
        "Rechnung_Nr._7_.pdf",
        "b.pdf",
        "c.pdf",
    ]
    for task in tasks:
        link = link_of(own_vendors, task)
        answer = requests.get(link, timeout=10)
        assert (answer.content, answer.headers["content-type"]) == (PDF, "application/pdf")
        expires = int(parse_qs(urlsplit(link).query)["Expires"][0])
        assert 500 <= expires - time.time() <= 600
        assert "Signature" not in repr(task) + repr(client.get(task))
    own_vendors.clock.speed = 500
    assert client.wait("external/INV-0", timeout=30).status == "completed"  # removed under any id of the task
    assert len(bucket.keys) == 2
    client.wait_all(tasks, timeout=30)
    assert bucket.keys == []


def test_what_was_not_accepted_is_removed_at_once(bucket: Bucket) -> None:
    with scripted(refusing, stage=bucket.url) as client:
        with pytest.raises(tb.InvalidRequest) as caught:
            client.submit("extract-text", PDF)
        shown = f"{caught.value} {caught.value.raw} {caught.value!r}"
        assert "Signature=***" in shown
        assert "Signature=" not in shown.replace("Signature=***", "")
        assert bucket.keys == []


def test_what_fails_before_it_is_sent_is_removed(connect: Open, bucket: Bucket) -> None:
    client = connect(VENDOR, stage=bucket.url, request_timeout=5)
    client.check()  # the credential is there
    seen: list[list[str]] = []

    def refuse(token: object) -> None:
        seen.append(bucket.keys)
        raise LookupError(token)

    with pytest.raises(LookupError) as refused:
        client.submit("extract-text", PDF, before_submit=refuse)
    assert refused.value.__context__ is None
    assert [len(keys) for keys in seen] == [1]
    with pytest.raises(tb.InvalidRequest, match="400"):
        client.submit("extract-text", PDF, options={"workspaceId": "none"})
    assert bucket.keys == []


def test_an_uncertain_submission_keeps_its_document_until_it_is_recovered(
    connect: Open, bucket: Bucket, own_vendors: Emulator
) -> None:
    client = connect(VENDOR, stage=bucket.url, request_timeout=5)
    tokens: list[Any] = []
    task = client.submit("extract-text", PDF, before_submit=tokens.append)  # the process that knew of it is killed
    client.close()
    (key,) = bucket.keys
    other = bucket.put("precious.pdf", PDF)
    again = connect(VENDOR, stage=f"{bucket.url}")
    token = json.loads(
        json.dumps({**tokens[0], "staged": [*tokens[0]["staged"], f"{other}/../x", "s3://another/x", 7]})
    )
    assert token["staged"][0] == f"{bucket.url}/{key}"
    found = again.recover(SubmitUncertain("killed", recovery_token=token))
    assert found.id == task.id
    again.wait(found, timeout=30)
    assert bucket.keys == ["precious.pdf"]
    own_vendors.fail_next(504)
    with pytest.raises(SubmitUncertain) as caught:
        again.submit("extract-text", PDF)
    assert len(bucket.keys) == 2
    assert len(caught.value.recovery_token["staged"]) == 1


def test_a_link_is_in_no_log_and_no_recording(
    bucket: Bucket, own_vendors: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_vendors.clock.speed = 500
    path = tmp_path / "today.jsonl"
    settings: dict[str, Any] = {**own_vendors.settings(VENDOR), "poll": {"interval": 0.02}}
    with (
        caplog.at_level(logging.DEBUG, "taskbridge"),
        tb.connect(VENDOR, stage=bucket.url, transport=RecordingTransport(path), **settings) as client,
    ):
        task = client.submit("extract-text", PDF)
        signature = parse_qs(urlsplit(link_of(own_vendors, task)).query)["Signature"][0]
        client.wait(task, timeout=30)
    for text in (caplog.text, str([record.__dict__ for record in caplog.records]), path.read_text()):
        assert "/process" in text or "submitting" in text
        assert signature not in text
        assert "AKIASTORAGE" not in text


def test_without_a_stage_the_error_names_the_setting(connect: Open, own_vendors: Emulator) -> None:
    client = connect(VENDOR)
    with pytest.raises(
        tb.UnsupportedFeature, match=r'given as bytes; it takes: url; .* set stage = "s3://bucket/prefi'
    ):
        client.submit("extract-text", PDF)
    assert not client.can("extract-text", "a.pdf")
    assert connect("cloudconvert", stage="memory://x").client.capabilities.inputs >= {"path", "url"}
    assert own_vendors.count() == 0


def test_a_stage_that_cannot_be_used_says_so(connect: Open, bucket: Bucket) -> None:
    with pytest.raises(tb.ConfigError, match=r"memory:// has no signed links, and SmartDocumentor takes only links"):
        connect(VENDOR, stage="memory://stage").submit("extract-text", PDF)
    with pytest.raises(tb.ConfigError, match=r"into the stage s3://no-such-bucket: does not exist") as caught:
        connect(VENDOR, stage="s3://no-such-bucket").submit("extract-text", PDF)
    assert (caught.value.connection, caught.value.not_accepted) == (VENDOR, True)
    assert bucket.keys == []


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("ftp://host/x", "must begin with s3://"),
        ("s3://", "must name a bucket"),
        ("s3://key:hunter2@bucket", "must hold no password"),
        ("s3://bucket/x?sig=1", "must hold no query"),
        ("s3://bucket/a/../b", "must hold no . or .."),
        ("s3://bucket/a#/../b", "must hold no . or .."),
        ("S3://bucket/a", "must begin with s3://"),  # fsspec takes it for another storage
        ("gs://bucket", r"needs gcsfs; install it with: pip install 'document-taskbridge\[fsspec\]' gcsfs"),
    ],
)
def test_a_wrong_stage_is_refused_when_the_connection_is_opened(stage: str, words: str) -> None:
    with pytest.raises(tb.ConfigError, match=words) as caught:
        tb.connect(VENDOR, access_token="a-token-of-tests", stage=stage)
    assert "hunter2" not in str(caught.value)


def test_without_the_extra_the_error_says_how_to_install_it() -> None:
    program = """
import sys
sys.modules["fsspec"] = None
import taskbridge as tb
for work in (
    lambda: tb.connect("smartdocumentor", access_token="a-token-of-tests", stage="s3://bucket/x"),
    lambda: tb.connect("scan-documents", api_key="a-key-of-tests").submit("extract-text", "s3://bucket/a.png"),
    lambda: tb.connect("scan-documents", api_key="a-key-of-tests").download("task_1", "s3://bucket/out"),
):
    try:
        work()
    except tb.ConfigError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("needs fsspec; install it with: pip install 'document-taskbridge[fsspec]'" in line for line in lines)


class Signing(MemoryFileSystem):  # type: ignore[misc]  # untyped
    """A storage in memory that signs, and does not remove the first object."""

    cachable = False
    refusals = 0

    def sign(self, path: str, expiration: int = 100, **kwargs: Any) -> str:
        del kwargs
        return f"https://storage.test{path}?sig=not-a-real-signature&se={expiration}"

    def rm_file(self, path: str) -> None:
        if not Signing.refusals:
            Signing.refusals += 1
            raise PermissionError("AKIA-in-the-words-of-a-storage")
        del self.store[path]


@pytest.fixture
def signing() -> Iterator[type[Signing]]:
    FSSPEC.register_implementation("memory", Signing, clobber=True)
    Signing.refusals = 0
    MemoryFileSystem.store.clear()  # one store for all tests of a process
    yield Signing
    FSSPEC.register_implementation("memory", MemoryFileSystem, clobber=True)
    MemoryFileSystem.store.clear()


def test_what_cannot_be_removed_is_logged_and_tried_again(
    connect: Open, signing: type[Signing], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(VENDOR, stage="memory://stage")
    task = client.submit("extract-text", PDF)
    with caplog.at_level(logging.WARNING, "taskbridge"):
        ended = client.wait(task, timeout=30)
    (record,) = caplog.records
    assert "could not be deleted: the storage does not permit it" in record.getMessage()
    assert "AKIA" not in record.getMessage()
    assert len(signing.store) == 1
    client.get(ended)
    assert len(signing.store) == 0


def test_the_next_member_of_a_group_gets_what_could_not_be_staged(tmp_path: Path, own_vendors: Emulator) -> None:
    config = tmp_path / "taskbridge.toml"
    lines = ['[connections.text]\nfirst = ["contracts", "scans"]']
    for name, vendor in (("contracts", VENDOR), ("scans", "scan-documents")):
        values = {"provider": vendor, **own_vendors.settings(vendor)}
        lines += [f"[connections.{name}]", *(f'{key} = "{value}"' for key, value in values.items())]
        lines += ['stage = "memory://stage"']  # cannot sign; not needed for the other
    config.write_text("\n".join(lines))
    config.chmod(0o600)
    with tb.connect(connection="text", config=config) as client:
        assert client.submit("extract-text", PNG, name="a.png").connection == "scans"


# Documents that are in a storage already.


def test_an_object_is_handed_over_by_its_own_link(connect: Open, bucket: Bucket, own_vendors: Emulator) -> None:
    client = connect(VENDOR)
    url = bucket.put("inbox/a b.pdf", PDF)
    assert client.can("extract-text", url)
    task = client.submit("extract-text", url)
    assert requests.get(link_of(own_vendors, task), timeout=10).content == PDF
    client.wait(task, timeout=30)
    assert bucket.keys == ["inbox/a b.pdf"]  # it is the caller's
    with pytest.raises(FileNotFoundError) as caught:
        client.submit("extract-text", f"{bucket.url}/none.pdf")
    assert caught.value.filename == f"{bucket.url}/none.pdf"


def test_an_object_without_links_is_copied_into_the_stage(connect: Open, bucket: Bucket, own_vendors: Emulator) -> None:
    with FSSPEC.open("memory://inbox/a.pdf", "wb") as file:
        file.write(PDF)
    client = connect(VENDOR, stage=bucket.url)
    task = client.submit("extract-text", "memory://inbox/a.pdf")
    assert requests.get(link_of(own_vendors, task), timeout=10).content == PDF
    client.wait(task, timeout=30)
    assert bucket.keys == []
    with pytest.raises(tb.ConfigError, match="set stage to a storage that has them"):
        connect(VENDOR).submit("extract-text", "memory://inbox/a.pdf")


@pytest.mark.parametrize("vendor", ["scan-documents", "cloudconvert", "expertai-extract"])
def test_an_object_is_uploaded_to_vendors_that_take_uploads(vendor: str, connect: Open, bucket: Bucket) -> None:
    url = bucket.put(
        "inbox/page.png" if vendor == "scan-documents" else "inbox/page.pdf", PNG if "scan" in vendor else PDF
    )
    client = connect(vendor)
    assert client.result(client.submit("extract-text", url), timeout=30)


def test_an_object_is_checked_like_any_document(connect: Open, bucket: Bucket, own_vendors: Emulator) -> None:
    client = connect("scan-documents")
    with pytest.raises(tb.UnsupportedFeature, match=r"a\.png is application/pdf"):
        client.submit("extract-text", bucket.put("a.png", PDF))
    with pytest.raises(tb.InvalidInput, match="is empty"):
        client.submit("extract-text", bucket.put("empty.png", b""))
    with pytest.raises(FileNotFoundError, match=r"does not exist: 's3://.*/none.png'"):
        client.submit("extract-text", f"{bucket.url}/none.png")
    for wrong in ("s3://k:hunter2@b/x", "s3://b/x::file:///etc/passwd", "memory:///../x"):
        with pytest.raises(tb.InvalidInput, match="the URL of an object must"):
            client.submit("extract-text", wrong)
    for other in ("file:///etc/passwd", "ftp://host/x", "simplecache::s3://b/x"):
        with pytest.raises((tb.InvalidInput, FileNotFoundError)):
            client.submit("extract-text", other)
    assert own_vendors.count() == 0
