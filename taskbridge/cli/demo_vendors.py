"""The other side of the demo: documents go out to the emulated vendors by plain HTTP, as each vendor's clients do it.

The demo's tasks are begun by others, in four vendors' own ways: what taskbridge watches need not come from it.
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

__all__ = ["ERRANDS", "Errand", "Settings", "cancel_capture"]

Settings = dict[str, str]

_PNG: Final = b64decode(  # one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
_PDF: Final = b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n%%EOF\n"
_SECONDS: Final = 10.0  # until an emulator that does not answer is given up
_FORM: Final = "taskbridge-demo"  # boundary of a multipart form


@dataclass(frozen=True, slots=True)
class Errand:
    """A document's way to a vendor.

    Attributes:
        name: What the demo calls its task.
        connection: Name of the connection that it goes through.
        provider: Entry-point name of the vendor.
        story: What is asked for.
        plan: How long the vendor takes, and how it ends.
        send: Creates the task; gives its shared id.
    """

    name: str
    connection: str
    provider: str
    story: str
    plan: Plan
    send: Callable[[Settings], str]

    def run(self, emulator: Emulator) -> str:
        """Create the task; its ref."""
        emulator.plan_next(self.provider, self.plan)
        return f"{self.connection}:{self.send(emulator.settings(self.provider))}"


def _post(url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    opener = build_opener(ProxyHandler({}))  # the emulators are on this machine
    request = Request(url, body, dict(headers), method="POST")  # noqa: S310  # an address of our own emulator
    with opener.open(request, timeout=_SECONDS) as answer:
        data: bytes = answer.read()
        return data


def _post_json(url: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> bytes:
    return _post(url, {**headers, "Content-Type": "application/json"}, json.dumps(body).encode())


# Scan Documents: upload a file, then order an operation on it.


def _scan_receipt(settings: Settings) -> str:
    key, root = {"x-api-key": settings["api_key"]}, settings["base_url"]
    part = f'--{_FORM}\r\nContent-Disposition: form-data; name="file"; filename="receipt.png"\r\n\r\n'.encode()
    form = {**key, "Content-Type": f"multipart/form-data; boundary={_FORM}"}
    file = json.loads(_post(f"{root}/files", form, part + _PNG + f"\r\n--{_FORM}--\r\n".encode()))
    order = {"input": file["id"], "format": "markdown"}
    task = json.loads(_post_json(f"{root}/image-operations/extract-text", key, order))
    return str(task["id"])


# CloudConvert: a job of three dependent tasks; a task by itself; the wish to stop it.


def _convert_report(settings: Settings) -> str:
    tasks = {
        "fetch": {"operation": "import/url", "url": "https://example.com/report.docx"},
        "convert": {"operation": "convert", "input": "fetch", "output_format": "pdf"},
        "export": {"operation": "export/url", "input": "convert"},
    }
    job = json.loads(_post_json(f"{settings['base_url']}/jobs", _bearer(settings["api_key"]), {"tasks": tasks}))
    return f"job/{job['data']['id']}"


def _capture_page(settings: Settings) -> str:
    order = {"url": "https://example.com/catalogue", "output_format": "pdf"}
    url = f"{settings['base_url']}/capture-website"
    task = json.loads(_post_json(url, _bearer(settings["api_key"]), order))
    return str(task["data"]["id"])


def cancel_capture(settings: Settings, task_id: str) -> None:
    """Stop the task, as a colleague might in the vendor's dashboard."""
    _post_json(f"{settings['base_url']}/tasks/{task_id}/cancel", _bearer(settings["api_key"]), {})


# SmartDocumentor: a token, then a document that the vendor fetches.


def _review_invoice(settings: Settings) -> str:
    user = {"client_id": settings["client_id"], "client_secret": settings["client_secret"]}
    form = urlencode({**user, "grant_type": "client_credentials", "scope": "WebAPI"}).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    token = json.loads(_post(settings["token_url"], kind, form))["access_token"]
    order = {"displayName": "Invoice 7", "context": {"url": "https://example.com/invoice-7.pdf"}}
    task = json.loads(_post_json(f"{settings['base_url']}/sdtask/process", _bearer(token), order))
    return str(task["taskId"])


# expert.ai Extract: a token that is plain text, then the document inside the order.


def _read_contract(settings: Settings) -> str:
    user = {"username": settings["username"], "password": settings["password"]}
    token = _post_json(settings["token_url"], {}, user).decode()
    order = {"document": {"name": "contract.pdf", "data": b64encode(_PDF).decode()}}
    task = json.loads(_post_json(f"{settings['base_url']}/layout-document-async", _bearer(token), order))
    return str(task["taskId"])


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


ERRANDS: Final = (
    Errand(
        "receipt",
        "receipts",
        "scan-documents",
        "text out of a photo: completes",
        Plan(queued=1.0, working=2.0),
        _scan_receipt,
    ),
    Errand(
        "report",
        "conversions",
        "cloudconvert",
        "a job of three tasks, each waits for the last",
        Plan(queued=1.0, working=1.5),
        _convert_report,
    ),
    Errand(
        "catalogue",
        "conversions",
        "cloudconvert",
        "a web page as PDF: somebody cancels it",
        Plan(queued=1.5, working=60.0),
        _capture_page,
    ),
    Errand(
        "invoice",
        "invoices",
        "smartdocumentor",
        "a person has to review it first",
        Plan(queued=0.8, working=2.4, review=3.0),
        _review_invoice,
    ),
    Errand(
        "contract",
        "contracts",
        "expertai-extract",
        "the layout of a broken PDF: fails",
        Plan(queued=0.5, working=4.0, outcome="failed"),
        _read_contract,
    ),
)
