"""File names in uploads: every emulator reads them as RFC 7578 and HTML forms write them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from taskbridge.emulator import Emulator

NAMES = {
    b'filename="\xc3\x9cbung.png"': "Übung.png",
    b'filename="\xe8\xab\x8b\xe6\xb1\x82 \xf0\x9f\x93\x84.png"': "請求 📄.png",
    b'filename="a %22b%22.png"': 'a "b".png',
    b'filename="a%0D%0Ab.png"': "a\r\nb.png",
    b'filename="100%25 sure.png"': "100%25 sure.png",  # only what forms escape is undone
    b'filename="a \\"b\\".png"': 'a "b".png',  # as older clients quote
    b'filename="a; b.png"': "a; b.png",
    b"filename=a b.png": "a b.png",  # npm's cloudconvert does not quote
    b"filename*=UTF-8''%C3%9Cbung.png": "Übung.png",
    b'filename="\xff.png"': "�.png",
    'filename=" a .png\xa0"'.encode(): " a .png\xa0",
}


@pytest.fixture(scope="module")
def vendors() -> Iterator[Emulator]:
    with Emulator("cloudconvert", "scan-documents") as emulator:
        yield emulator


def form(fields: dict[str, str], file: bytes) -> dict[str, Any]:
    """Return the body and the header of a form whose last part is a file with this parameter."""
    heads = [(f'form-data; name="{name}"'.encode(), value.encode()) for name, value in fields.items()]
    heads.append((b'form-data; name="file"; ' + file, b"\x89PNG"))
    parts = [b"--b\r\nContent-Disposition: " + head + b"\r\n\r\n" + value + b"\r\n" for head, value in heads]
    return {"data": b"".join(parts) + b"--b--\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}


@pytest.mark.parametrize(("parameter", "name"), NAMES.items())
def test_a_file_name_arrives_in_cloudconverts_storage(vendors: Emulator, parameter: bytes, name: str) -> None:
    settings = vendors.settings("cloudconvert")
    key = {"Authorization": f"Bearer {settings['api_key']}"}
    task = requests.post(f"{settings['base_url']}/import/upload", json={}, headers=key, timeout=5).json()["data"]
    upload = task["result"]["form"]
    assert requests.post(upload["url"], **form(upload["parameters"], parameter), timeout=5).status_code == 201
    task = requests.get(f"{settings['base_url']}/tasks/{task['id']}", headers=key, timeout=5).json()["data"]
    assert task["result"]["files"][0]["filename"] == name


@pytest.mark.parametrize(("parameter", "name"), NAMES.items())
def test_a_file_name_arrives_at_scan_documents(vendors: Emulator, parameter: bytes, name: str) -> None:
    settings = vendors.settings("scan-documents")
    sent = form({}, parameter)
    sent["headers"]["x-api-key"] = settings["api_key"]
    assert requests.post(f"{settings['base_url']}/files", **sent, timeout=5).json()["name"] == name


def test_requests_and_the_emulators_agree_about_names(vendors: Emulator) -> None:
    settings, name = vendors.settings("scan-documents"), 'Rechnung "März" 請求.pdf'
    sent = {"headers": {"x-api-key": settings["api_key"]}, "files": {"file": (name, b"%PDF")}, "timeout": 5}
    assert requests.post(f"{settings['base_url']}/files", **sent).json()["name"] == name  # type: ignore[arg-type]
