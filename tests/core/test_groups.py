"""Groups of connections: the first member that accepts a submission gets it, and it never goes to two."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge._config.defaults import override_defaults
from taskbridge._config.files import read_config
from taskbridge.errors import CircuitOpen, ConnectFailed, TruncatedResponse
from taskbridge.provider.http import Request, Response, Upload
from taskbridge.testing import AsyncScriptedTransport, ScriptedTransport
from taskbridge.testing.transport import Script

FILE: Final = """
default = "text"

[connections.text]
first = ["contracts", "scans"]

[connections.contracts]
provider = "smartdocumentor"
access_token = "token-of-the-test"
base_url = "https://contracts.test"
retry.attempts = 1

[connections.scans]
provider = "scan-documents"
api_key = "key-of-the-test"
base_url = "https://scans.test"
retry.attempts = 1
"""
URL: Final = "https://documents.test/a.png"
TASK: Final = {"id": "task_1", "operation": "extract-text", "status": "pending"}
ROW: Final = {"taskId": 44, "workspaceId": 1, "displayName": "a", "totalPages": 0, "taskStatusText": "Processed"}


class Vendors:
    """Both vendors: the first answers a submission as the test says, the second accepts everything."""

    def __init__(self, *refusals: Response | tb.TaskbridgeError, second: Response | None = None) -> None:
        self._refusals = list(refusals)
        self._second = second
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        url = urlsplit(request.url)
        if url.hostname == "contracts.test":
            if request.method == "GET":
                return _json(ROW)
            answer = self._refusals.pop(0) if self._refusals else _json({"taskId": 44})
            if isinstance(answer, tb.TaskbridgeError):
                raise answer
            return answer
        if url.hostname == "documents.test":
            return Response(200, {"content-type": "image/png"}, b"\x89PNG\r\n")
        if request.method == "POST" and url.path == "/files":
            return _json({"id": "file_1", "name": "a.png"})
        if request.method == "POST" and self._second is not None:
            return self._second
        return _json(TASK)

    @property
    def hosts(self) -> list[str | None]:
        return [urlsplit(each.url).hostname for each in self.requests]


def _json(document: Any, status: int = 200) -> Response:
    return Response(status, {}, json.dumps(document).encode())


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "taskbridge.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


class Transports:
    """Connects every client to the vendors."""

    def __init__(self, vendors: Script) -> None:
        self._vendors = vendors

    def transport(self, connection: object) -> ScriptedTransport:
        del connection
        return ScriptedTransport(self._vendors)

    def async_transport(self, connection: object) -> AsyncScriptedTransport:
        del connection
        return AsyncScriptedTransport(self._vendors)


class Interface:
    """The client of a group, the asynchronous one, or a bridge."""

    def __init__(self, kind: str, config: Path) -> None:
        self.kind = kind
        self._config = config

    def call(self, vendors: Script, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the group's client."""
        with override_defaults(transports=Transports(vendors)):
            if self.kind == "asynchronous":
                return asyncio.run(self._await(method, *args, **kwargs))
            if self.kind == "bridge":
                with tb.Bridge.from_config(self._config) as bridge:
                    return getattr(bridge["text"], method)(*args, **kwargs)
            with tb.connect(connection="text", config=self._config) as client:
                return getattr(client, method)(*args, **kwargs)

    async def _await(self, method: str, *args: Any, **kwargs: Any) -> Any:
        async with aio.connect(connection="text", config=self._config) as client:
            return await getattr(client, method)(*args, **kwargs)


@pytest.fixture(params=["synchronous", "asynchronous", "bridge"])
def interface(request: pytest.FixtureRequest, config: Path) -> Interface:
    return Interface(request.param, config)


Submit: TypeAlias = Callable[..., tb.Task]


@pytest.fixture
def submit(interface: Interface) -> Submit:
    """Submit through the group by each interface."""

    def call(vendors: Script, *args: Any, **kwargs: Any) -> tb.Task:
        task: tb.Task = interface.call(vendors, "submit", *args, **kwargs)
        return task

    return call


def unsent() -> tb.TaskbridgeError:
    return ConnectFailed("refused")


# Which member gets it.


def test_the_first_member_gets_it(submit: Submit) -> None:
    vendors = Vendors()
    assert submit(vendors, "extract-text", URL).ref == "contracts:44"
    assert vendors.hosts == ["contracts.test"]


@pytest.mark.parametrize(
    "refusal",
    [
        _json({}, 429),
        _json({}, 402),
        _json({}, 401),
        _json({}, 403),
        _json({}, 422),
        _json({}, 404),
        unsent(),
        CircuitOpen("pausing"),
    ],
    ids=lambda each: str(getattr(each, "status", type(each).__name__)),
)
def test_the_next_member_gets_what_the_first_surely_did_not_accept(submit: Submit, refusal: Any) -> None:
    vendors = Vendors(refusal, refusal)
    assert submit(vendors, "extract-text", URL).ref == "scans:task_1"


def test_what_the_first_does_not_offer_is_not_sent_to_it(submit: Submit, tmp_path: Path) -> None:
    document = tmp_path / "a.png"
    document.write_bytes(b"\x89PNG\r\n")
    vendors = Vendors()
    assert submit(vendors, "extract-text", document).connection == "scans"
    assert "contracts.test" not in vendors.hosts


@pytest.mark.parametrize(
    "doubt",
    [
        TruncatedResponse("cut"),
        _json({}, 500),
        _json({}, 502),
        _json({}, 503),
        _json({}, 408),
        _json({}, 409),
        _json({}, 302),
        Response(200, {}, b"<html>"),
        _json({"taskId": None}),
    ],
    ids=lambda each: str(getattr(each, "status", type(each).__name__)),
)
def test_what_the_first_may_have_accepted_goes_to_no_other(submit: Submit, doubt: Any) -> None:
    vendors = Vendors(doubt, doubt)
    with pytest.raises(tb.TaskbridgeError) as caught:
        submit(vendors, "extract-text", URL)
    assert caught.value.connection == "contracts"
    assert not caught.value.not_accepted
    assert set(vendors.hosts) == {"contracts.test"}


def test_if_all_refuse_the_last_error_names_every_refusal(submit: Submit) -> None:
    vendors = Vendors(_json({}, 429), second=_json({"message": "no credits left"}, 402))
    with pytest.raises(tb.QuotaExceeded) as caught:
        submit(vendors, "extract-text", URL)
    error = caught.value
    assert "no member of the group 'text' accepted the submission: contracts: too many requests" in error.message
    assert "; scans: no credits left" in error.message
    assert (error.connection, error.retryable, error.not_accepted) == ("scans", True, True)


def test_a_stream_is_read_once_and_sent_whole_to_the_next_member(submit: Submit, config: Path) -> None:
    text = FILE.replace('["contracts", "scans"]', '["scans", "more"]')
    more = '[connections.more]\nprovider = "scan-documents"\napi_key = "another-key"\nbase_url = "https://more.test"\n'
    config.write_text(text + more, encoding="utf-8")
    content = b"\x89PNG\r\n" + bytes(3_000_000)
    uploaded: list[tuple[str | None, bytes, str]] = []

    class Full(Vendors):
        def __call__(self, request: Request) -> Response:
            if isinstance(request.body, Upload):
                path = request.body.content
                assert isinstance(path, Path)
                uploaded.append((urlsplit(request.url).hostname, path.read_bytes(), request.body.filename))
            elif urlsplit(request.url).hostname == "scans.test":
                return _json({}, 429)
            return super().__call__(request)

    stream = io.BytesIO(content)
    stream.name = "scan.png"
    assert submit(Full(), "extract-text", stream).ref == "more:task_1"
    assert uploaded == [("scans.test", content, "scan.png"), ("more.test", content, "scan.png")]


def test_the_token_before_a_submission_names_the_member(submit: Submit) -> None:
    seen: list[Mapping[str, Any]] = []
    submit(Vendors(_json({}, 429)), "extract-text", URL, before_submit=seen.append)
    assert [each["connection"] for each in seen] == ["contracts", "scans"]


# What else a group's client does.


def test_refs_of_the_members_work(interface: Interface, tmp_path: Path) -> None:
    vendors = Vendors()
    assert interface.call(vendors, "get", "scans:task_1").ref == "scans:task_1"
    done = interface.call(vendors, "wait", "contracts:44")
    assert done.is_terminal
    assert interface.call(vendors, "result", done).data["taskId"] == 44
    assert len(interface.call(vendors, "download", "contracts:44", tmp_path / "results")) == 1
    assert interface.call(vendors, "wait_all", ["contracts:44"])[0].unwrap() == done


def test_a_bridge_submits_to_a_group(config: Path) -> None:
    vendors = Vendors(_json({}, 429))
    with override_defaults(transports=Transports(vendors)), tb.Bridge.from_config(config) as bridge:
        assert (bridge.connections, bridge.groups) == (("contracts", "scans"), ("text",))
        assert bridge.submit("text", "extract-text", URL).ref == "scans:task_1"
        with pytest.raises(tb.UnsupportedFeature, match="contracts, scans"):
            bridge.list("text")


@pytest.mark.parametrize("given", ["44", "text:44", "external/INV-7"])
def test_an_id_must_name_a_member(interface: Interface, given: str) -> None:
    vendors = Vendors()
    with pytest.raises(tb.InvalidTaskId, match=r"which member of the group 'text'.*contracts, scans"):
        interface.call(vendors, "get", given)
    assert vendors.requests == []


ONE_VENDOR: Final[Mapping[str, Callable[[tb.Client], object]]] = {
    "list": lambda client: client.list(),
    "check": lambda client: client.check(),
    "parse_webhook": lambda client: client.parse_webhook({}, b""),
    "download": lambda client: client.download(tb.TaskFile(name="a", url=URL), "."),
    "provider": lambda client: client.provider,
    "capabilities": lambda client: client.capabilities,
}


@pytest.mark.parametrize("use", ONE_VENDOR)
def test_what_only_a_member_can_do_names_the_members(config: Path, use: str) -> None:
    with (
        tb.connect(connection="text", config=config) as client,
        pytest.raises(tb.UnsupportedFeature, match=r"'text' is a group .* name a member: contracts, scans"),
    ):
        ONE_VENDOR[use](client)


def test_a_member_has_a_client_of_its_own(config: Path) -> None:
    with tb.connect(connection="text", config=config, transport=ScriptedTransport(Vendors())) as client:
        assert [each.provider for each in client.members] == ["smartdocumentor", "scan-documents"]
        assert client.members[1].get("task_1").ref == "scans:task_1"
        assert client.members[0].members == ()
        assert (client.name, repr(client)) == ("text", "<Client text (first of contracts, scans)>")
    with pytest.raises(tb.ConfigError, match="closed"):
        client.members[0].get("44")


def test_an_uncertain_submission_is_recovered_at_its_member(interface: Interface) -> None:
    row = _json({**ROW, "externalId": "INV-7"})

    def vendors(request: Request) -> Response | Exception:
        return row if request.method == "GET" else TruncatedResponse("cut")

    with pytest.raises(tb.SubmitUncertain) as caught:
        interface.call(vendors, "submit", "extract-text", URL, external_id="INV-7")
    found = interface.call(vendors, "recover", caught.value)
    assert found.ref == "contracts:44"


def test_the_default_may_be_a_group(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKBRIDGE_CONFIG", str(config))
    with tb.connect(transport=ScriptedTransport(Vendors())) as client:
        assert client.name == "text"


# Errors in the configuration.

SCANS: Final = '[connections.scans]\nprovider = "scan-documents"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("first = []", "connections.text.first is empty; name the connections"),
        ('first = "scans"', 'connections.text.first must be a list of connections, such as ["scans", "layouts"]'),
        ("first = [1]", "connections.text.first must be a list"),
        ('first = ["scan"]', "connections.text.first names 'scan', which is no connection; did you mean 'scans'?"),
        ('first = ["scans", "scans"]', "connections.text.first names a connection twice"),
        ('first = ["text"]', "connections.text.first names 'text', which is the group itself"),
        ('first = ["scans", "other"]', "connections.text.first names 'other', which is a group, too"),
        ('first = [["scans"]]', "connections.text.first must be a list"),
        ('first = ["scans"]\nprovider = "cloudconvert"', "connections.text has provider and first"),
        ('first = ["scans"]\npoll.interval = 2', "is a group, which takes first only, not poll"),
    ],
)
def test_a_group_that_cannot_be_right_is_refused(text: str, problem: str) -> None:
    document = f'[connections.text]\n{text}\n[connections.other]\nfirst = ["scans"]\n{SCANS}'
    with pytest.raises(tb.ConfigError) as caught:
        read_config(document, path=Path("taskbridge.toml"), environ={})
    assert problem in str(caught.value)
    assert "taskbridge.toml" in str(caught.value)


def test_a_group_takes_no_settings(config: Path) -> None:
    with pytest.raises(tb.ConfigError, match="'text' is a group and takes no settings; set request_timeout for its"):
        tb.connect(connection="text", config=config, request_timeout=5.0)
