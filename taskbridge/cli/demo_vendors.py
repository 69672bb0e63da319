"""The tasks of the demo, created over plain HTTP as each vendor's own clients do it.

They show that taskbridge can watch tasks that it did not submit.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

from taskbridge.emulator.vendor import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.emulator.shell import Emulator

Settings = dict[str, str]

_PNG: Final = b64decode(  # one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
_PDF: Final = b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n%%EOF\n"
_SECONDS: Final = 10.0  # timeout of a request
_FORM: Final = "taskbridge-demo"  # boundary of a multipart form


@dataclass(frozen=True, slots=True)
class DemoTask:
    """A task of the demo.

    Attributes:
        name: Its name in the demo.
        connection: Name of the connection.
        provider: Entry-point name of the provider.
        story: What the task does.
        plan: How long the vendor takes, and how the task ends.
        send: Creates the task; returns its shared id.
    """

    name: str
    connection: str
    provider: str
    story: str
    plan: Plan
    send: Callable[[Settings], str]

    def run(self, emulator: Emulator) -> str:
        """Create the task and return its ref."""
        emulator.plan_next(self.provider, self.plan)
        return f"{self.connection}:{self.send(emulator.settings(self.provider))}"


def _post(url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    opener = build_opener(ProxyHandler({}))  # the emulators are on this machine
    request = Request(url, body, dict(headers), method="POST")  # noqa: S310  # an address of our own emulator
    with opener.open(request, timeout=_SECONDS) as response:
        data: bytes = response.read()
        return data


def _post_json(url: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> bytes:
    return _post(url, {**headers, "Content-Type": "application/json"}, json.dumps(body).encode())


# Scan Documents: upload a file, then start an operation on it.


def _scan_receipt(settings: Settings) -> str:
    key, root = {"x-api-key": settings["api_key"]}, settings["base_url"]
    part = f'--{_FORM}\r\nContent-Disposition: form-data; name="file"; filename="receipt.png"\r\n\r\n'.encode()
    form = {**key, "Content-Type": f"multipart/form-data; boundary={_FORM}"}
    file = json.loads(_post(f"{root}/files", form, part + _PNG + f"\r\n--{_FORM}--\r\n".encode()))
    body = {"input": file["id"], "format": "markdown"}
    task = json.loads(_post_json(f"{root}/image-operations/extract-text", key, body))
    return str(task["id"])


# CloudConvert: a job of three dependent tasks; a single task, and its cancellation.


def _convert_report(settings: Settings) -> str:
    tasks = {
        "fetch": {"operation": "import/url", "url": "https://example.com/report.docx"},
        "convert": {"operation": "convert", "input": "fetch", "output_format": "pdf"},
        "export": {"operation": "export/url", "input": "convert"},
    }
    job = json.loads(_post_json(f"{settings['base_url']}/jobs", _bearer(settings["api_key"]), {"tasks": tasks}))
    return f"job/{job['data']['id']}"


def _capture_page(settings: Settings) -> str:
    body = {"url": "https://example.com/catalogue", "output_format": "pdf"}
    url = f"{settings['base_url']}/capture-website"
    task = json.loads(_post_json(url, _bearer(settings["api_key"]), body))
    return str(task["data"]["id"])


def cancel_capture(settings: Settings, task_id: str) -> None:
    """Cancel the task, as a colleague might in the vendor's dashboard."""
    _post_json(f"{settings['base_url']}/tasks/{task_id}/cancel", _bearer(settings["api_key"]), {})


# SmartDocumentor: a token, then a document that the vendor fetches.


def _review_invoice(settings: Settings) -> str:
    user = {"client_id": settings["client_id"], "client_secret": settings["client_secret"]}
    form = urlencode({**user, "grant_type": "client_credentials", "scope": "WebAPI"}).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    token = json.loads(_post(settings["token_url"], kind, form))["access_token"]
    body = {"displayName": "Invoice 7", "context": {"url": "https://example.com/invoice-7.pdf"}}
    task = json.loads(_post_json(f"{settings['base_url']}/sdtask/process", _bearer(token), body))
    return str(task["taskId"])


# expert.ai Extract: a token in plain text, then a request that contains the document.


def _read_contract(settings: Settings) -> str:
    user = {"username": settings["username"], "password": settings["password"]}
    token = _post_json(settings["token_url"], {}, user).decode()
    body = {"document": {"name": "contract.pdf", "data": b64encode(_PDF).decode()}}
    task = json.loads(_post_json(f"{settings['base_url']}/layout-document-async", _bearer(token), body))
    return str(task["taskId"])


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


DEMO_TASKS: Final = (
    DemoTask(
        "receipt",
        "receipts",
        "scan-documents",
        "text out of a photo: completes",
        Plan(queued=1.0, working=2.0),
        _scan_receipt,
    ),
    DemoTask(
        "report",
        "conversions",
        "cloudconvert",
        "a job of three tasks, one after another",
        Plan(queued=1.0, working=1.5),
        _convert_report,
    ),
    DemoTask(
        "catalogue",
        "conversions",
        "cloudconvert",
        "a web page as PDF: it gets cancelled",
        Plan(queued=1.5, working=60.0),
        _capture_page,
    ),
    DemoTask(
        "invoice",
        "invoices",
        "smartdocumentor",
        "a person has to review it first",
        Plan(queued=0.8, working=2.4, review=3.0),
        _review_invoice,
    ),
    DemoTask(
        "contract",
        "contracts",
        "expertai-extract",
        "the layout of a broken PDF: fails",
        Plan(queued=0.5, working=4.0, outcome="failed"),
        _read_contract,
    ),
)
