"""Secrets that are kept in a file, in the keyring or behind a function: how they are read, and read again."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from hmac import new as hmac
from pathlib import Path
from typing import Any, Final

import keyring
import keyring.backend
import keyring.errors
import pytest
from pydantic import SecretStr

import taskbridge as tb
from taskbridge import aio
from taskbridge._config.connections import connection_settings
from taskbridge._config.files import read_config
from taskbridge._config.registry import load_provider
from taskbridge.provider.http import Request, Response
from taskbridge.testing import AsyncScriptedTransport, ScriptedTransport, VirtualClock

OLD: Final = "sk-old-0123456789abcdef"
NEW: Final = "sk-new-fedcba9876543210"
TASK: Final = "c85f3ca9-164c-4e89-8ae2-c08192a7cb08"


class Vendor:
    """CloudConvert, which accepts one key; and expert.ai, which accepts one password."""

    def __init__(self, accepts: str = NEW) -> None:
        self.accepts = accepts
        self.sent: list[str] = []

    def __call__(self, request: Request) -> Response:
        if "oauth2" in request.url:
            assert isinstance(request.body, bytes)
            sent = str(json.loads(request.body)["password"])
            good = Response(200, {}, b"a-token-of-mine")
        else:
            sent = str(request.headers.get("Authorization", "")).removeprefix("Bearer ")
            data = {"id": TASK, "operation": "convert", "status": "finished", "state": "SUCCEEDED"}
            good = Response(200, {}, json.dumps({"data": data, **data}).encode())
        self.sent.append(sent)
        return good if sent in (self.accepts, "a-token-of-mine") else Response(401, {}, b"{}")


class MemoryKeyring(keyring.backend.KeyringBackend):
    """A keyring in memory."""

    priority = 1  # pyright: ignore[reportAssignmentType]  # as the package's own backends do

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the package's own
        self.passwords: dict[tuple[str, str], str] = {}
        self.locked = False
        self.error: Exception | None = None  # of the backend's own

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise self.error or keyring.errors.KeyringLocked(f"cannot show {NEW}")
        return self.passwords.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.passwords[service, username] = password


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for secrets; no other file of a test may hold one."""
    return tmp_path_factory.mktemp("secrets")


@pytest.fixture
def memory_keyring() -> Iterator[MemoryKeyring]:
    before, own = keyring.get_keyring(), MemoryKeyring()
    keyring.set_keyring(own)
    yield own
    keyring.set_keyring(before)


def refused(**settings: Any) -> str:
    """Return the message of the error, in which no secret is."""
    with pytest.raises(tb.ConfigError) as caught:
        tb.connect("cloudconvert", **settings)
    shown = f"{caught.value!r} {vars(caught.value)} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert OLD not in shown
    assert NEW not in shown
    return str(caught.value)


# Files.


def test_a_file_holds_the_secret_and_is_read_again_once_it_is_refused(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, vendor = folder / "key", Vendor(OLD)
    path.write_text(f"{OLD}\n")
    transport = ScriptedTransport(vendor)
    with tb.connect("cloudconvert", api_key={"file": str(path)}, transport=transport) as client:
        client.get(TASK)
        path.write_text(f"{NEW}\r\n")
        client.get(TASK)
        assert vendor.sent == [OLD, OLD]  # not before it is refused
        vendor.accepts = NEW
        with caplog.at_level(logging.INFO, "taskbridge"):
            client.get(TASK)
            client.get(TASK)
    assert vendor.sent == [OLD, OLD, OLD, NEW, NEW]
    assert [record.getMessage() for record in caplog.records] == ["connection cloudconvert uses a new secret"]


def test_both_the_old_and_the_new_secret_stay_out_of_errors(folder: Path) -> None:
    path, vendor = folder / "key", Vendor(NEW)
    path.write_text(OLD)

    def respond(request: Request) -> Response:
        response = vendor(request)
        body = json.dumps({"message": f"{OLD} and {NEW}"}).encode()
        return response if response.status == 401 else Response(422, {}, body)

    with tb.connect("cloudconvert", api_key={"file": str(path)}, transport=ScriptedTransport(respond)) as client:
        path.write_text(NEW)
        with pytest.raises(tb.InvalidRequest) as caught:
            client.get(TASK)
    assert caught.value.message == "*** and ***"
    assert OLD not in repr(vars(caught.value))


def test_a_secret_that_has_not_changed_is_refused_once(folder: Path) -> None:
    path, vendor = folder / "key", Vendor(NEW)
    path.write_text(OLD)
    transport = ScriptedTransport(vendor)
    with tb.connect("cloudconvert", api_key={"file": str(path)}, transport=transport) as client:
        with pytest.raises(tb.AuthenticationError):
            client.get(TASK)
        assert vendor.sent == [OLD, OLD]  # replayed once, as without a file
        path.write_text(NEW)
        assert client.get(TASK).is_terminal  # a new call resumes


def test_a_file_that_is_gone_when_it_is_needed_is_named(folder: Path) -> None:
    path = folder / "key"
    path.write_text(OLD)
    transport = ScriptedTransport(Vendor(NEW))
    with tb.connect("cloudconvert", api_key={"file": str(path)}, transport=transport) as client:
        path.unlink()
        with pytest.raises(tb.AuthenticationError, match=f"the file {path} does not exist"):
            client.get(TASK)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff\xfe", "holds bytes that are no text"),
        (b"x" * 70_000, "has more than 65536 bytes"),
        (f"{NEW} {OLD}\n{OLD}".encode(), "holds a control character"),
        (b"changeme\n", "is a placeholder"),
    ],
)
def test_a_file_that_holds_no_secret_is_named(content: bytes | None, problem: str, folder: Path) -> None:
    path = folder / "key"
    if content is not None:
        path.write_bytes(content)
    message = refused(api_key={"file": str(path)})
    assert "api_key (from connect())" in message
    assert f"the file {path}" in message
    assert problem in message


def test_what_is_no_readable_file_is_refused(folder: Path) -> None:
    assert f"the file {folder} is no regular file" in refused(api_key={"file": str(folder)})
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
        assert "is no regular file" in refused(api_key={"file": str(folder / "pipe")})
    assert "cannot be read (ValueError)" in refused(api_key={"file": "/run/\0"})
    assert "the file named there" in refused(api_key={"file": NEW})  # a key in the wrong place is not shown
    for wrong in ({"path": "x"}, {"file": 3}, {"keyring": "x"}, {"file": "x", "keyring": "y", "user": "z"}, {}):
        assert 'must be a text, or { file = "…" }' in refused(api_key=wrong)


def test_a_file_is_named_in_toml_in_lists_and_in_variables(folder: Path) -> None:
    (folder / "key").write_text(f"{NEW}\n")
    (folder / "taskbridge.toml").write_text(
        '[connections.a]\nprovider = "cloudconvert"\napi_key = { file = "${FOLDER}/key" }\n'
        'webhook_secrets = ["one", { file = "${FOLDER}/key" }]\n'
    )
    config = read_config((folder / "taskbridge.toml").read_text(), environ={"FOLDER": str(folder)})
    assert config.connection().values["webhook_secrets"] == ["one", {"file": f"{folder}/key"}]
    lost = read_config((folder / "taskbridge.toml").read_text(), environ={})
    with pytest.raises(tb.ConfigError, match="FOLDER, which is not set"):
        connection_settings(lost.connection(), load_provider("cloudconvert"))
    environ = {"TASKBRIDGE_A__PROVIDER": "cloudconvert", "TASKBRIDGE_A__API_KEY__FILE": str(folder / "key")}
    assert read_config("", environ=environ).connection().values == {"api_key": {"file": str(folder / "key")}}


# Functions.


def test_a_function_is_asked_when_opening_and_once_its_answer_is_refused() -> None:
    vendor, answers = Vendor(NEW), [OLD, NEW]
    asked: list[int] = []

    def key() -> str:
        asked.append(len(vendor.sent))
        return answers[min(len(asked), 2) - 1]

    with tb.connect("cloudconvert", api_key=key, transport=ScriptedTransport(vendor)) as client:
        client.get(TASK)
        client.get(TASK)
    assert (asked, vendor.sent) == ([0, 1], [OLD, NEW, NEW])


def test_the_asynchronous_client_asks_in_a_thread() -> None:
    vendor, answers = Vendor(NEW), [OLD, NEW]
    loops: list[bool] = []

    def key() -> SecretStr:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            loops.append(False)
        else:
            loops.append(True)
        return SecretStr(answers.pop(0))

    async def main() -> None:
        async with aio.connect("cloudconvert", api_key=key, transport=AsyncScriptedTransport(vendor)) as client:
            several = await asyncio.gather(*(client.get(TASK) for _ in range(3)))
            assert all(task.is_terminal for task in several)

    asyncio.run(main())
    assert (loops, answers) == ([True, False], [])  # three refusals of one credential, and one question


def test_a_function_that_fails_is_an_error_without_the_secret() -> None:
    def fails() -> str:
        raise RuntimeError(NEW)

    async def asks() -> str:
        return NEW

    assert "api_key (from connect()): its function raised RuntimeError" in refused(api_key=fails)
    assert "returned int, not a text" in refused(api_key=lambda: 3)
    assert "returned coroutine, not a text" in refused(api_key=asks)
    assert "returned by its function, is empty" in refused(api_key=lambda: "\n")

    answers = [OLD]

    def once() -> str:
        return answers.pop() if answers else fails()

    with tb.connect("cloudconvert", api_key=once, transport=ScriptedTransport(Vendor(NEW))) as client:
        with pytest.raises(tb.AuthenticationError, match="its function raised RuntimeError") as caught:
            client.get(TASK)
        assert NEW not in repr(vars(caught.value))
        assert client.stats()["cloudconvert"].is_refused


# Logins.


def test_a_login_is_read_again_once_it_is_refused(folder: Path) -> None:
    path, vendor = folder / "password", Vendor(OLD)
    path.write_text(OLD)
    (folder / "user").write_text("me@example.com\n")
    settings: dict[str, Any] = {"password": {"file": str(path)}, "username": {"file": str(folder / "user")}}
    transport = ScriptedTransport(vendor)
    with tb.connect("expertai-extract", **settings, transport=transport) as client:
        path.write_text(NEW)
        vendor.accepts = NEW
        client.get(TASK)
        assert vendor.sent == [OLD, NEW, "a-token-of-mine"]
        body = transport.requests[0].body
        assert isinstance(body, bytes)
        assert json.loads(body)["username"] == "me@example.com"
        path.write_text(OLD)
        vendor.accepts = OLD
        assert client.check().how == "a token was issued"
        vendor.accepts = NEW  # and the file does not change
        with pytest.raises(tb.AuthenticationError):
            client.check()


# The keyring.


def test_the_keyring_holds_the_secret(memory_keyring: MemoryKeyring) -> None:
    settings: dict[str, Any] = {"api_key": {"keyring": "documents", "user": "me"}}
    assert "has no password for this service and user; add it: keyring set documents me" in refused(**settings)
    memory_keyring.locked = True
    assert "the keyring cannot be read (KeyringLocked)" in refused(**settings)
    memory_keyring.error = ValueError(NEW)  # a backend may be anybody's code
    assert "the keyring cannot be read (ValueError)" in refused(**settings)
    memory_keyring.locked = False
    memory_keyring.passwords["documents", "me"] = OLD
    vendor = Vendor(NEW)
    with tb.connect("cloudconvert", **settings, transport=ScriptedTransport(vendor)) as client:
        memory_keyring.passwords["documents", "me"] = NEW
        client.get(TASK)
    assert vendor.sent == [OLD, NEW]


def test_the_keyring_is_an_extra_that_only_its_settings_import() -> None:
    program = """
import sys, taskbridge as tb
tb.connect("cloudconvert", api_key=lambda: "a-key-of-mine").close()
assert "keyring" not in sys.modules
sys.modules["keyring"] = None
try:
    tb.connect("cloudconvert", api_key={"keyring": "a", "user": "b"})
except tb.ConfigError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "[keyring]'" in ran.stdout


# Webhooks.


def test_a_webhook_secret_is_read_again_for_a_delivery_that_it_does_not_prove(folder: Path) -> None:
    path, clock = folder / "secret", VirtualClock()
    path.write_text(OLD)
    body = json.dumps({"event": "job.finished", "job": {"id": TASK, "status": "finished", "tasks": []}})

    def parse(client: tb.Client, secret: str) -> tb.WebhookEvent:
        signature = hmac(secret.encode(), body.encode(), sha256).hexdigest()
        return client.parse_webhook({"CloudConvert-Signature": signature}, body.encode())

    secrets = [{"file": str(path)}]
    with tb.connect("cloudconvert", api_key=OLD, webhook_secrets=secrets, clock=clock) as client:
        parse(client, OLD)
        path.write_text(NEW)
        assert parse(client, NEW).type == "job.finished"
        path.write_text(OLD)
        with pytest.raises(tb.WebhookRejected):
            parse(client, OLD)  # anyone can send a wrong one: no reading twice within some seconds
        clock.advance(6)
        assert parse(client, OLD).type == "job.finished"
        path.unlink()
        clock.advance(6)
        with pytest.raises(tb.ConfigError, match="does not exist"):
            parse(client, NEW)
