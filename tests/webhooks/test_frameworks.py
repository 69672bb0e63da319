"""The receivers of docs/webhooks.md, each in its framework on a real server, called by the emulators."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import requests

import taskbridge as tb
from taskbridge.emulator.server import LoopbackServer, listen
from taskbridge.testing import Emulator
from taskbridge_cloudconvert.emulator import CloudConvertEmulator
from taskbridge_scan_documents.emulator import ScanDocumentsEmulator
from taskbridge_smartdocumentor.emulator import SmartDocumentorEmulator

django: Any = import_module("django")  # it has no types
django_settings: Any = import_module("django.conf").settings
get_wsgi_application: Any = import_module("django.core.wsgi").get_wsgi_application

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "webhooks.md"
SECRET: Final = "b7Qd0c9yT2wX4mLr"
Eventually = Callable[..., None]


def receiver(heading: str) -> dict[str, Any]:
    """The names that the code under a heading of the page defines."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n### {heading}\n")[1]
    code = re.search(r"```python\n(.+?)```", section, re.DOTALL)
    assert code is not None
    namespace: dict[str, Any] = {"__name__": "receiver"}
    exec(compile(code[1], str(PAGE), "exec"), namespace)  # the code is ours
    return namespace


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name in the base class
        pass


@contextmanager
def serving(app: Any) -> Generator[str]:
    server = make_server("127.0.0.1", 0, app, handler_class=_Silent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def configured(stopped: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    def write(connection: str, vendor: str, secret: str) -> None:
        lines = [f"[connections.{connection}]", f'provider = "{vendor}"', f'webhook_secrets = ["{secret}"]']
        lines += [f'{key} = "{value}"' for key, value in stopped.settings(vendor).items()]
        path = tmp_path / "taskbridge.toml"
        path.write_text("\n".join(lines))
        monkeypatch.setenv("TASKBRIDGE_CONFIG", str(path))

    return write


def check_refusals(url: str) -> None:
    """Check that unverified deliveries are refused without a trace."""
    cases: list[tuple[bytes, dict[str, str | bytes], int]] = [
        (b"{}", {}, 401),
        (b"{}", {"svix-signature": "v1,x", "CloudConvert-Signature": "ö".encode("latin-1")}, 401),
        (b"{}", {"Content-Encoding": "gzip"}, 415),
        (b" " * ((1 << 20) + 1), {}, 413),
    ]
    for body, headers, answer in cases:
        response = requests.post(url, data=body, headers=headers, timeout=5)
        assert response.status_code == answer
        assert "secret" not in response.text.lower()
    assert requests.get(url, timeout=5).status_code == 405


def test_flask_with_cloudconvert(stopped: Emulator, configured: Any, eventually: Eventually) -> None:
    vendor = stopped.vendors["cloudconvert"]
    assert isinstance(vendor, CloudConvertEmulator)
    configured("invoices", "cloudconvert", vendor.webhooks.job_secret)
    namespace = receiver("Flask")
    with serving(namespace["app"]) as url, namespace["invoices"]:
        check_refusals(f"{url}/hooks/invoices")
        settings = stopped.settings("cloudconvert")
        source = {"operation": "import/url", "url": "https://example.com/report.docx"}
        submission = {"webhook_url": f"{url}/hooks/invoices", "tasks": {"a": source}}
        headers = {"Authorization": f"Bearer {settings['api_key']}"}
        created = requests.post(f"{settings['base_url']}/jobs", json=submission, headers=headers, timeout=5).json()[
            "data"
        ]
        stopped.clock.advance(60)
        eventually(lambda: len(stopped.deliveries) == 1)
    assert [seen.status for seen in stopped.deliveries] == [204]
    (task,) = namespace["converted"].values()
    assert (task.ref, task.status) == (f"invoices:job/{created['id']}", tb.TaskStatus.COMPLETED)


def test_fastapi_with_scan_documents(stopped: Emulator, configured: Any, eventually: Eventually) -> None:
    vendor = stopped.vendors["scan-documents"]
    assert isinstance(vendor, ScanDocumentsEmulator)
    bound = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}/hooks/scans"
    configured("scans", "scan-documents", vendor.register_webhook(url, ["task.created", "task.completed"]))
    namespace = receiver("FastAPI")
    server = LoopbackServer(namespace["api"], bound)
    server.start()
    try:
        check_refusals(url)
        stopped.disturb_deliveries(duplicate=True)
        settings, sample = stopped.settings("scan-documents"), stopped.samples("scan-documents")["completed"]
        headers = {"x-api-key": settings["api_key"]}
        shown = requests.get(f"{settings['base_url']}/tasks/{sample}", headers=headers, timeout=5).json()
        submission = {"input": shown["parameters"]["input"], "effect": "grayscale"}
        url_of_effects = f"{settings['base_url']}/image-operations/apply-effect"
        created = requests.post(url_of_effects, json=submission, headers=headers, timeout=5).json()
        stopped.clock.advance(60)
        eventually(lambda: len(stopped.deliveries) == 4)
    finally:
        server.stop()
    assert {seen.status for seen in stopped.deliveries} == {204}
    (task,) = namespace["scanned"].values()
    assert (task.id, task.status) == (created["id"], tb.TaskStatus.COMPLETED)


def test_django_with_smartdocumentor(stopped: Emulator, configured: Any, eventually: Eventually) -> None:
    configured("contracts", "smartdocumentor", SECRET)
    namespace = receiver("Django")
    if not django_settings.configured:
        django_settings.configure(ALLOWED_HOSTS=["127.0.0.1"], DATA_UPLOAD_MAX_MEMORY_SIZE=1)
        django.setup()
    django_settings.ROOT_URLCONF = tuple(namespace["urlpatterns"])
    vendor = stopped.vendors["smartdocumentor"]
    assert isinstance(vendor, SmartDocumentorEmulator)
    with serving(get_wsgi_application()) as url, namespace["contracts"]:
        assert requests.post(f"{url}/hooks/guessed", data=b'{"taskId": 44}', timeout=5).status_code == 401
        assert requests.get(f"{url}/hooks/{SECRET}", timeout=5).status_code == 405
        vendor.register_export(f"{url}/hooks/{SECRET}")
        settings = stopped.settings("smartdocumentor")
        form = {"grant_type": "client_credentials", "scope": "WebAPI"}
        form |= {key: settings[key] for key in ("client_id", "client_secret")}
        token = requests.post(settings["token_url"], data=form, timeout=5).json()["access_token"]
        submission = {"displayName": "invoice", "context": {"url": "https://documents.example/invoice.pdf"}}
        headers = {"Authorization": f"Bearer {token}"}
        created = requests.post(
            f"{settings['base_url']}/sdtask/process", json=submission, headers=headers, timeout=5
        ).json()
        stopped.clock.advance(60)
        eventually(lambda: len(stopped.deliveries) == 1)
    assert [seen.status for seen in stopped.deliveries] == [204]
    (task,) = namespace["reviewed"].values()
    assert (task.native_id, task.status) == (created["taskId"], tb.TaskStatus.COMPLETED)
