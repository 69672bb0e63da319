"""The documented calls of ``expertai-extract`` 0.1.2, replayed against the emulator.

The package is not on the index, so its calls are repeated here as the vendor's reference describes them: what it sends,
what it checks in responses, and the loop and the decoding of its README.
"""

from __future__ import annotations

import gzip
import json
import struct
from base64 import b64decode, b64encode, urlsafe_b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
import requests

from taskbridge.emulator import Emulator
from taskbridge_expertai_extract.emulator import ExpertAiExtractEmulator

JSON: Final = "application/json; charset=utf-8"
AGENT: Final = "OpenAPI-Generator/1.0.0/python"
PDF: Final = b"%PDF-1.4 /Type /Page "


class ForbiddenError(Exception):
    """What the client makes of a 403."""


@dataclass
class ExtractClient:
    """The client: ``authorization_host`` is the whole token URL, ``host`` includes ``/beta``."""

    emulator: Emulator
    token: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        return self.emulator.settings()

    def login(self) -> None:
        """Get a token unless the present one is valid: three parts, and ``exp``, decoded with padding, not past."""
        parts = self.token.split(".")
        if len(parts) == 3:
            claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
            if "exp" not in claims or claims["exp"] > self.emulator.clock.time():
                return
        user = {key: self.settings[key] for key in ("username", "password")}
        answer = requests.post(
            self.settings["token_url"], data=json.dumps(user), headers={"Content-Type": JSON}, timeout=5
        )
        assert answer.status_code == 200
        self.token = answer.text  # plain text

    def call(self, method: str, path: str, body: object = None) -> requests.Response:
        self.login()
        headers = {"Authorization": f"Bearer {self.token}", "User-Agent": AGENT, "Accept": "application/json"}
        data = None if body is None else json.dumps(body)
        if data is not None:
            headers["Content-Type"] = JSON
        answer = requests.request(method, self.settings["base_url"] + path, data=data, headers=headers, timeout=5)
        if answer.status_code == 403:
            problem = answer.json()
            messages = [error["message"] for error in problem["_embedded"]["errors"]]
            raise ForbiddenError(problem["message"], *messages)
        return answer

    def recognize(self, name: str, document: bytes) -> str:
        body = {"document": {"name": name, "data": b64encode(document).decode("ascii")}}
        answer = self.call("POST", "/layout-document-async", body)
        assert answer.status_code == 202
        task_id = answer.json()["taskId"]
        assert isinstance(task_id, str)
        return task_id

    def status(self, task_id: str) -> dict[str, Any]:
        """One status; the client checks the types of what is there."""
        answer = self.call("GET", f"/status/{task_id}")
        assert answer.status_code == 200
        body: dict[str, Any] = answer.json()
        for key, kind in {"current": int, "message": str, "state": str}.items():
            assert type(body.get(key)) in {kind, type(None)}, key
        return body

    def wait(self, task_id: str) -> dict[str, Any]:
        """The loop of the README, which ends at SUCCESS or FAILURE; five seconds are vendor time here."""
        while (status := self.status(task_id))["state"] not in {"SUCCESS", "FAILURE"}:
            self.emulator.clock.advance(5)
        return status


@pytest.fixture
def client() -> Iterator[ExtractClient]:
    with Emulator("expertai-extract", speed=0) as emulator:
        yield ExtractClient(emulator)


def words(page: str) -> list[tuple[str, tuple[int, ...]]]:
    """The words of a page, as the README decodes them: text, a zero byte, five numbers; the next after four bytes."""
    rest, found = gzip.decompress(b64decode(page)), list[tuple[str, tuple[int, ...]]]()
    while rest:
        text, _, rest = rest.partition(b"\0")
        found.append((text.decode(), struct.unpack("<5I", rest[:20])))
        rest = rest[24:]
    return found


def test_a_document_is_recognized(client: ExtractClient) -> None:
    done = client.wait(client.recognize("test.pdf", PDF))
    assert (done["state"], done["current"], done["message"]) == ("SUCCESS", 100, "completed")
    header, layout = done["result"]["header"], done["result"]["layout"]
    assert (header["documentName"], header["errorPages"], header["totPages"]) == ("test.pdf", 0, 1)
    assert [item["type"] for item in layout] == ["page", "text"]
    contents = {item["id"]: item.get("content") for item in layout}
    for text, (index, *_box) in words(done["result"]["words"][0]):
        assert contents[index] == f"{text}\n"


def test_the_published_words_are_decoded(client: ExtractClient) -> None:
    """The test vector of the client's fixture; the emulator's page has the same form."""
    published = words("H4sIAK+FKGIC/ytJLS5hYGJgYEgB4lQgrgHiIiAGAEjL9hsZAAAA")
    assert published == [("test", (2, 100, 101, 124, 114))]
    done = client.wait(client.recognize("test.pdf", PDF))
    assert words(done["result"]["words"][0]) == [("test1", published[0][1])]


def test_a_failure_ends_the_loop_with_its_reason(client: ExtractClient) -> None:
    for name, document in {"fail.pdf": PDF, "image.png": b"\x89PNG\r\n\x1a\n"}.items():
        failed = client.wait(client.recognize(name, document))
        assert (failed["state"], failed["current"], bool(failed["message"])) == ("FAILURE", 0, True)


def test_one_login_serves_until_the_token_expires(client: ExtractClient) -> None:
    for token in ("-1RDVOdFM1UHJBar", "_.eyJleHAiOjE2NDI0OTMyMjZ9._"):  # the client's own: no JWT, and expired in 2022
        client.token = token
        client.wait(client.recognize("test.pdf", PDF))
    assert client.emulator.count(path_contains="/oauth2/token") == 2
    client.emulator.clock.advance(3600)
    client.status("any")
    assert client.emulator.count(path_contains="/oauth2/token") == 3


def test_the_client_reads_a_missing_subscription(client: ExtractClient) -> None:
    vendor = client.emulator.vendors["expertai-extract"]
    assert isinstance(vendor, ExpertAiExtractEmulator)
    vendor.subscribed = False
    with pytest.raises(ForbiddenError, match=r"No active subscription"):
        client.status("any")
    vendor.subscribed = True
    client.emulator.fail_next(403)
    with pytest.raises(ForbiddenError):
        client.recognize("test.pdf", PDF)
