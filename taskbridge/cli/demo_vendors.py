"""The tasks of the demo, created over plain HTTP as each vendor's own clients do it.

They show that taskbridge can watch tasks that it did not submit.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import requests

from taskbridge.emulator.vendor import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.emulator.shell import Emulator

_Settings: TypeAlias = dict[str, str]

_PNG: Final = b64decode(  # one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
_PDF: Final = b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n%%EOF\n"
_TIMEOUT: Final = 10.0  # seconds for a request


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
    send: Callable[[_Settings], str]

    def run(self, emulator: Emulator) -> str:
        """Create the task and return its ref."""
        emulator.plan_next(self.provider, self.plan)
        return f"{self.connection}:{self.send(emulator.settings(self.provider))}"


def _post(url: str, headers: dict[str, str], **body: Any) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False  # no proxy: the emulators are on this machine
        response = session.post(url, headers=headers, timeout=_TIMEOUT, **body)
        response.raise_for_status()
        return response


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _scan_receipt(settings: _Settings) -> str:
    """Scan Documents: upload a file, then start an operation on it."""
    key, root = {"x-api-key": settings["api_key"]}, settings["base_url"]
    file = _post(f"{root}/files", key, files={"file": ("receipt.png", _PNG)}).json()
    operation = {"input": file["id"], "format": "markdown"}
    return str(_post(f"{root}/image-operations/extract-text", key, json=operation).json()["id"])


def _convert_report(settings: _Settings) -> str:
    """CloudConvert: a job of three dependent tasks."""
    tasks = {
        "fetch": {"operation": "import/url", "url": "https://example.com/report.docx"},
        "convert": {"operation": "convert", "input": "fetch", "output_format": "pdf"},
        "export": {"operation": "export/url", "input": "convert"},
    }
    response = _post(f"{settings['base_url']}/jobs", _bearer(settings["api_key"]), json={"tasks": tasks})
    return f"job/{response.json()['data']['id']}"


def _capture_page(settings: _Settings) -> str:
    """CloudConvert: a single task."""
    page = {"url": "https://example.com/catalog", "output_format": "pdf"}
    response = _post(f"{settings['base_url']}/capture-website", _bearer(settings["api_key"]), json=page)
    return str(response.json()["data"]["id"])


def cancel_capture(settings: _Settings, task_id: str) -> None:
    """Cancel the task, as a colleague might in the vendor's dashboard."""
    _post(f"{settings['base_url']}/tasks/{task_id}/cancel", _bearer(settings["api_key"]), json={})


def _review_invoice(settings: _Settings) -> str:
    """SmartDocumentor: a token, then a document that the vendor fetches."""
    user = {"client_id": settings["client_id"], "client_secret": settings["client_secret"]}
    form = {**user, "grant_type": "client_credentials", "scope": "WebAPI"}
    token = _post(settings["token_url"], {}, data=form).json()["access_token"]
    document = {"displayName": "Invoice 7", "context": {"url": "https://example.com/invoice-7.pdf"}}
    return str(_post(f"{settings['base_url']}/sdtask/process", _bearer(token), json=document).json()["taskId"])


def _read_contract(settings: _Settings) -> str:
    """expert.ai Extract: a token in plain text, then a request that contains the document."""
    user = {"username": settings["username"], "password": settings["password"]}
    token = _post(settings["token_url"], {}, json=user).text
    document = {"document": {"name": "contract.pdf", "data": b64encode(_PDF).decode()}}
    return str(_post(f"{settings['base_url']}/layout-document-async", _bearer(token), json=document).json()["taskId"])


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
        "catalog",
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
