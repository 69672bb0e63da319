"""The emulated file storage of CloudConvert: a separate S3-like host, which does not know the API key.

Links are capabilities: the secret is in the fields of the upload form and in the query of an export URL. A request with
an ``Authorization`` header is refused, as S3 refuses two ways of authenticating, so that a client that forwards its key
to the storage fails here. Error bodies are assumed, in S3's shape.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import mimetypes
import re
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import quote, urlencode
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from taskbridge.emulator.helpers import from_multipart

from .emulator_tasks import RETENTION, NativeTask, StoredFile, TaskStore

FORM_LIFETIME: Final = 6 * 3600.0  # seconds after the task's creation (wire VCR)
ACCESS_KEY: Final = "emulated"
# HTTP status -> code and message; S3's, assumed for this vendor.
ERRORS: Final = {
    403: ("AccessDenied", "Access Denied"),
    404: ("NoSuchKey", "The specified key does not exist."),
    405: ("MethodNotAllowed", "The specified method is not allowed against this resource."),
    500: ("InternalError", "We encountered an internal error. Please try again."),
    503: ("SlowDown", "Please reduce your request rate."),
}
FILENAME: Final = "${filename}"  # the caller sends it verbatim, the storage replaces it (wire VCR)


class Storage:
    """Upload forms and export URLs, both signed with ``secret``."""

    def __init__(self, store: TaskStore, base_url: str, secret: bytes) -> None:
        self._store = store
        self._base_url = base_url
        self._secret = secret

    def routes(self) -> list[Route]:
        """Routes for uploads and for files."""
        return [
            Route("/tasks", self._upload, methods=["POST"]),
            Route("/tasks/{task}/{filename:path}", self._download, methods=["GET"]),
        ]

    def error_response(self, status: int) -> Response | None:
        """The storage's own response with an error status."""
        return _error(status, *ERRORS[status]) if status in ERRORS else None

    # Links and forms.

    def url(self, task: NativeTask, file: StoredFile) -> str:
        """The export URL of a finished task's file, valid for 24 h (doc EXP), with the query of 2020 to 2022 (wire)."""
        expires = int(self._store.timeline(task).ended + RETENTION)
        query = {
            "AWSAccessKeyId": ACCESS_KEY,
            "Expires": expires,
            "Signature": self._sign(task.id, file.name, str(expires)),
        }
        return f"{self._location(task, file.name)}?{urlencode(query)}"

    def form(self, task: NativeTask) -> dict[str, Any]:
        """``result.form`` of a task that waits for its upload (wire VCR: an S3 POST policy)."""
        date = datetime.fromtimestamp(task.created, UTC)
        expiry = datetime.fromtimestamp(task.created + FORM_LIFETIME, UTC)
        fields = {
            "acl": "private",
            "key": f"{task.id}/{FILENAME}",
            "success_action_status": "201",
            "X-Amz-Credential": f"{ACCESS_KEY}/{date:%Y%m%d}/us-east-1/s3/aws4_request",
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Date": f"{date:%Y%m%dT%H%M%SZ}",
        }
        policy = {
            "expiration": f"{expiry:%Y-%m-%dT%H:%M:%SZ}",
            "conditions": [{name: value} for name, value in fields.items()],
        }
        encoded = base64.b64encode(json.dumps(policy).encode()).decode()
        signed = {"Policy": encoded, "X-Amz-Signature": self._sign(encoded)}
        return {"url": f"{self._base_url}/tasks", "parameters": {**fields, **signed}}

    def _location(self, task: NativeTask, filename: str) -> str:
        return f"{self._base_url}/tasks/{task.id}/{quote(filename, safe='')}"

    def _sign(self, *parts: str) -> str:
        return hmac.new(self._secret, "\n".join(parts).encode(), hashlib.sha256).hexdigest()

    # Uploads and downloads.

    async def _upload(self, request: Request) -> Response:
        """Receive an upload: the form's fields verbatim, the file last (doc IMP)."""
        if "authorization" in request.headers:
            return _error(400, "InvalidArgument", "Only one auth mechanism allowed")
        parts = from_multipart(await request.body(), request.headers.get("content-type", ""))
        file = parts.get("file")
        if file is None or list(parts)[-1] != "file":
            return _error(400, "InvalidArgument", "POST requires exactly one file upload, as the last field")
        fields = {name: part.data.decode("utf-8", "replace") for name, part in parts.items() if name != "file"}
        task = self._store.tasks.get(fields.get("key", "").partition("/")[0])
        if task is None or task.deleted or self.form(task)["parameters"] != fields:
            return _error(403, "AccessDenied", "Invalid according to Policy")
        if self._store.now >= task.created + FORM_LIFETIME:
            return _error(403, "AccessDenied", "Invalid according to Policy: Policy expired.")
        name = re.split(r"[/\\]", file.filename or "")[-1] or "file"
        stored = StoredFile(name, file.data)
        self._store.receive(task, stored)
        location, tag = self._location(task, name), _etag(stored)
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<PostResponse><Bucket>tasks</Bucket><Key>{escape(task.id + '/' + name)}</Key>"
            f"<ETag>{escape(tag)}</ETag><Location>{escape(location)}</Location></PostResponse>"
        )
        return Response(body, 201, {"Location": location, "ETag": tag, "Content-Type": "application/xml"})

    async def _download(self, request: Request) -> Response:
        task_id, name, query = request.path_params["task"], request.path_params["filename"], request.query_params
        if "authorization" in request.headers:
            return _error(400, "InvalidArgument", "Only one auth mechanism allowed")
        expires = query.get("Expires", "")
        if not hmac.compare_digest(query.get("Signature", "").encode(), self._sign(task_id, name, expires).encode()):
            return _error(403, "SignatureDoesNotMatch", "The signature does not match")
        if self._store.now >= int(expires):
            return _error(403, "AccessDenied", "Request has expired")
        task = self._store.task(task_id)
        files = {file.name: file for file in self._store.files(task)} if task is not None else {}
        if task is None or name not in files:
            return _error(404, *ERRORS[404])
        disposition = "inline" if task.payload.get("inline") else "attachment"
        return _file(files[name], disposition, self._store.timeline(task).ended, request.headers.get("range", ""))


def _file(file: StoredFile, disposition: str, modified: float, range_header: str) -> Response:
    """A file, or the one range of its bytes that was requested."""
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Type": mimetypes.guess_type(file.name)[0] or "application/octet-stream",
        "Content-Disposition": f"{disposition}; {_header_name(file.name)}",
        "ETag": _etag(file),
        "Last-Modified": formatdate(modified, usegmt=True),
    }
    size = len(file.content)
    requested = re.fullmatch(r"bytes=(\d+)-(\d*)", range_header)
    if requested is None:
        return Response(file.content, 200, headers)
    first, last = int(requested[1]), min(int(requested[2] or size), size - 1)
    if first > last:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    return Response(file.content[first : last + 1], 206, headers | {"Content-Range": f"bytes {first}-{last}/{size}"})


def _header_name(name: str) -> str:
    printable = re.sub(r'[^ -~]|["\\]', "_", name)
    encoded = "" if printable == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'filename="{printable}"{encoded}'


def _etag(file: StoredFile) -> str:
    return f'"{file.md5}"'


def _error(status: int, code: str, message: str) -> Response:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Response(body, status, media_type="application/xml")
