r"""Lone surrogates (``"\ud800"``), which JSON can contain and no encoding has, anywhere in a vendor's response."""

from __future__ import annotations

import hmac
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

ODD: Final = "a\ud800b"
JOB: Final = "73df1e16-fd8b-47a1-a156-f197babde91a"
TASK: Final = {
    "id": JOB,
    "operation": f"command{ODD}",
    "status": "finished",
    "message": ODD,
    "code": ODD,
    "result": {"files": [{"filename": f"{ODD}.txt", ODD: ODD}], "metadata": {ODD: 1, "a\udfffb": [ODD]}},
}
FAILED: Final = {**TASK, "status": "error"}


@pytest.fixture
def odd_config(tmp_path: Path) -> Iterator[Path]:
    """A configuration for a vendor that answers with surrogates."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data: Any = TASK if JOB in self.path else [TASK, FAILED]
            if "/jobs/" in self.path:
                data = {"id": JOB, "status": "error", "tag": ODD, "tasks": [FAILED, TASK]}
            body = json.dumps({"data": data, "links": {}, "meta": {}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the base class
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    path = tmp_path / "surrogates.toml"
    path.write_text(
        'default = "cc"\n[connections.cc]\nprovider = "cloudconvert"\napi_key = "some-key-0123"\n'
        f'webhook_secrets = ["some-secret-0123"]\nbase_url = "http://127.0.0.1:{server.server_address[1]}/v2"\n'
    )
    yield path
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("get", f"cc:{JOB}"), 0),
        (("get", f"cc:job/{JOB}"), 1),
        (("wait", f"cc:{JOB}"), 0),
        (("wait", f"cc:{JOB}", f"cc:job/{JOB}"), 1),
        (("result", f"cc:{JOB}"), 0),
        (("result", f"cc:job/{JOB}"), 1),
        (("list",), 0),
        (("explain", f"cc:{JOB}"), 0),
    ],
)
def test_commands_print_them(
    run: Run, odd_config: Path, words: tuple[str, ...], code: int, options: tuple[str, ...]
) -> None:
    done = run(*words, *options, "--config", str(odd_config))

    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    said = done.stdout + done.stderr
    if options:
        for line in said.splitlines():
            json.loads(line)
    assert JOB in said


def test_listen_answers_and_prints_the_event(start: Callable[..., subprocess.Popen[str]], odd_config: Path) -> None:
    from .test_listen import send  # noqa: PLC0415  # the same way to send

    process = start("listen", "cc", "--json", "--port", "0", "--config", str(odd_config))
    try:
        assert process.stderr is not None
        assert process.stdout is not None
        url = json.loads(process.stderr.readline())["listening"]
        job = {"id": JOB, "tag": ODD, "status": "error", "tasks": [FAILED, TASK]}
        body = json.dumps({"event": "job.failed", "job": job}).encode()
        signature = hmac.new(b"some-secret-0123", body, sha256).hexdigest()
        assert send(url, body, CloudConvert_Signature=signature) == 200
        record = json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()
    assert (record["status"], record["ref"]) == (200, f"cc:job/{JOB}")
    assert record["task"]["external_id"] == "a?b"
