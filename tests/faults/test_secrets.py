"""No credential leaks, however a call ends; `tests/canaries.py` checks the same in all other tests."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import pytest
from pydantic import SecretStr

import taskbridge as tb
from taskbridge import aio
from taskbridge._config.registry import load_provider
from taskbridge._config.settings import CommonSettings
from taskbridge._transport.requests import RequestsTransport
from taskbridge.errors import ConfigError, TaskbridgeError, TransportError
from taskbridge.provider.capabilities import Credential
from taskbridge.provider.http import Request
from taskbridge.provider.secrets import SecretHeader, strip_tracebacks, without_traceback
from taskbridge.transport import Network

from ..canaries import Watch, found_in  # noqa: TID252  # beside this folder
from .conftest import Place
from .leaks import ACCOUNTS, holds
from .polling import DRIVERS, Driver, get_task
from .server import FIN, HANG, READ, answer
from .vendors import CANARY, VENDORS

connect: Final[Callable[..., tb.Client]] = tb.connect


def secret_settings(name: str) -> list[str]:
    """Settings of a provider, and of every connection, that take a credential."""
    fields = {**load_provider(name).Settings.model_fields, **CommonSettings.model_fields}
    return [key for key, field in fields.items() if "SecretStr" in str(field.annotation)]


SETTINGS: Final = [(name, key) for name in VENDORS for key in secret_settings(name)]
BROKEN: Final[dict[str, Callable[[str], object]]] = {
    "a line break inside": lambda key: f"{key}\n{key}",
    "a control character": lambda key: f"{key}\x07",
    "a smart quote": lambda key: f"\u201c{key}\u201d",
    "an ellipsis": lambda key: f"{key}…",
    "a space at an end": lambda key: f" {key}",
    "a variable": lambda key: f"${{{key.replace('-', '_')}}}",
    "a placeholder": lambda key: f"<{key}>",
    "a list where a text is wanted": lambda key: [[key]],
}


def test_every_vendor_has_a_setting_for_its_credential() -> None:
    assert {name for name, key in SETTINGS if key not in ("proxy", "webhook_secrets")} == set(VENDORS)


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_f62_to_f64_an_invalid_credential_is_refused_and_not_shown(name: str, setting: str, fault: str) -> None:
    key = f"canary-{token_hex(8)}"
    value: Any = BROKEN[fault](key)
    with pytest.raises(ConfigError) as caught:
        connect(name, **{setting: [value] if setting == "webhook_secrets" else value})
    assert setting in caught.value.message
    assert holds(caught.value, key, key.replace("-", "_")) == []


@pytest.mark.parametrize("value", ["", "  ", "\n", "changeme", "CHANGEME", "your-api-key", "xxx", "...", "${API_KEY}"])
def test_f64_a_placeholder_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"api_key \(from connect\(\)\) is (empty|a placeholder)"):
        tb.connect("cloudconvert", api_key=value)


def test_f62_the_newline_of_a_mounted_file_is_removed(places: dict[str, Place]) -> None:
    server = places["plain"].server
    assert server is not None
    vendor = VENDORS["cloudconvert"]
    play = server.play((READ, answer(200, vendor.completed), FIN))
    get_task("sync", vendor, places["plain"].url, api_key=f"{CANARY}\r\n")
    assert f"Bearer {CANARY}\r\n" in play.requests[0].raw.decode()


def test_the_environment_is_not_shown_with_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = f"canary-{token_hex(8)}"
    monkeypatch.setenv("CLOUDCONVERT_API_KEY", key)
    path = tmp_path / "taskbridge.toml"
    for text in (
        '[connections.a]\nprovider = "cloudconvert"\napi_key = "${CLOUDCONVERT_API_KEY}"\nmax_body = "x"',
        f'[connections.a]\nprovider = "cloudconvert"\napi_kye = "{key}"',
        f'[connections.a]\nprovider = "cloudconvert"\napi_key = "{key}"\nca_bundle = "/nowhere"\npoll = "{key}"',
        f'[connections.a]\napi_key = "{key}"',
        f'[connections.a]\nprovider = "cloudconvert"\napi_key = "{key}\n',
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            tb.Bridge.from_config(str(path))
        assert holds(caught.value, key) == []
        with pytest.raises(ConfigError) as caught:
            tb.connect(connection="a", config=str(path))
        assert holds(caught.value, key) == []


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", VENDORS)
def test_an_unreadable_response_that_echoes_the_key_does_not_show_it(
    name: str, driver: Driver, places: dict[str, Place]
) -> None:
    place, vendor = places["plain"], VENDORS[name]
    assert place.server is not None
    place.server.play((READ, answer(200, f"your key is {CANARY}, is it not".encode()), FIN))
    error = get_task(driver, vendor, place.url)
    assert isinstance(error, tb.MalformedResponse)
    assert holds(error, CANARY) == []


# A process of its own, which gets the interrupt.
INTERRUPTED: Final = """
import signal, sys
sys.path.insert(0, sys.argv[1])
from faults.leaks import interrupted
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs without it
print(interrupted(int(sys.argv[2]), sys.argv[3], sys.argv[4]))
"""


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("number", range(len(ACCOUNTS)))
def test_an_interruption_shows_no_credential(number: int, driver: Driver, places: dict[str, Place]) -> None:
    place = places["plain"]
    assert place.server is not None
    play = place.server.play((READ, HANG))
    root = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, root, str(number), driver, place.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        while not play.requests and program.poll() is None:
            threading.Event().wait(0.002)
        program.send_signal(signal.SIGINT)
        assert program.communicate(timeout=60.0) == ("[]\n", "")


@pytest.mark.parametrize("name", VENDORS)
def test_a_cancelled_call_shows_no_credential(name: str, places: dict[str, Place]) -> None:
    place, vendor = places["plain"], VENDORS[name]
    assert place.server is not None
    play = place.server.play((READ, HANG))

    async def cancel() -> BaseException | None:
        async with aio.connect(vendor.name, **vendor.settings(place.url)) as client:
            task = asyncio.create_task(client.get(vendor.id))
            while not play.requests:  # noqa: ASYNC110  # another thread's count
                await asyncio.sleep(0.002)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError as error:
                return error
        return None

    error = asyncio.run(cancel())
    assert error is not None
    assert holds(error, CANARY) == []


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_password_of_a_proxy_is_not_shown(driver: Driver, places: dict[str, Place]) -> None:
    key = f"canary-{token_hex(8)}"
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        proxy = f"http://me:{key}@127.0.0.1:{kept.getsockname()[1]}"
        seen = get_task(driver, VENDORS["cloudconvert"], places["tls"].url, proxy=proxy, **places["tls"].settings)
    assert isinstance(seen, TransportError)
    assert holds(seen, key, CANARY) == []


def test_the_query_of_a_url_is_in_no_log(places: dict[str, Place], caplog: pytest.LogCaptureFixture) -> None:
    place = places["plain"]
    assert place.server is not None
    place.server.play((READ, answer(200, b"{}"), FIN))
    transport = RequestsTransport(Network())
    request = Request("GET", f"{place.url}/file?signature=hush-hush", authorized=False)
    with caplog.at_level(logging.DEBUG, "urllib3"):
        transport.send(request, deadline=1e9, max_body=100)
    transport.close()
    assert '"GET / HTTP/1.1" 200' in caplog.text
    assert "hush-hush" not in f"{caplog.text} {[record.__dict__ for record in caplog.records]}"


# What does it.


def test_a_credential_is_hidden_in_repr_and_sent_as_it_is() -> None:
    credential = Credential({"Authorization": "Bearer canary-1"})
    headers = {"Accept": "*/*", **credential.headers}
    assert "canary" not in f"{credential} {headers} {list(headers.values())}"
    assert headers["Authorization"].encode() == b"Bearer canary-1"
    assert SecretHeader("a") == "a"


def test_a_stripped_error_keeps_only_our_own_causes() -> None:
    def fail() -> None:
        key = "canary-1"
        try:
            raise ValueError(key)  # noqa: TRY301  # as a careless library does
        except ValueError:
            raise TaskbridgeError("ours") from TaskbridgeError("ours too")

    with pytest.raises(TaskbridgeError) as caught:
        strip_tracebacks(fail)()
    assert (caught.value.__context__, type(caught.value.__cause__)) == (None, TaskbridgeError)
    assert holds(caught.value, "canary-1") == []
    external = without_traceback(KeyError("a"))
    assert (external.__traceback__, external.__cause__, external.__context__) == (None, None, None)


# The watch itself.


def leak(key: str) -> None:
    """A library that leaks."""
    logging.getLogger("taskbridge").warning("using %s", key)
    raise TaskbridgeError(f"{key} is refused")


def test_the_canary_watch_detects_leaks(watch: Watch) -> None:
    outer, key = watch, SecretStr(f"canary-{token_hex(8)}").get_secret_value()
    watch = Watch()
    with watch.on(), suppress(TaskbridgeError):
        leak(key)
    found = watch.found()
    assert [each.split(":")[0] for each in found][:2] == ["text", "TaskbridgeError, text"]
    assert found_in(f"a text with {key}") == [key]
    assert outer.found()
    outer.texts.clear()
    outer.errors.clear()
