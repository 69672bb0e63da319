"""An emulator of expert.ai Extract Beta, written from its documents; times in seconds, sizes in bytes.

Labels such as STATUS name the vendor's pages; PY is the official client. What neither says is marked as assumed.
Error responses have no body, except for 403, whose body the official client parses.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import struct
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import ClassVar, Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute

from taskbridge.emulator import Host, Plan, VendorEmulator
from taskbridge.emulator.helpers import (
    BearerTokens,
    ErrorResponse,
    JsonObject,
    Life,
    as_object,
    count_pdf_pages,
    from_json,
    random_text,
    routes,
    to_json,
)

PREFIX: Final = "expertai-extract"
TOKEN_PATH: Final = "/oauth2/token"  # noqa: S105  # a path, not a password
TOKEN_LIFETIME_S: Final = 3600  # assumed; "a certain duration" in doc CLIENT
REQUEST_LIMIT: Final = 14 * 1024 * 1024  # "14 MB": doc SUBMIT; that MB means MiB is assumed
PAGE_LIMIT: Final = 500  # doc SUBMIT
PDF_MARK: Final = b"%PDF-"
PDF_HEAD: Final = 1024  # bytes in which the mark may stand: a fact about PDF readers, not about the vendor
PHASES: Final = ("page conversion", "classification")  # in this order; sdk PY; equal parts of the work are assumed

# The body of 403, as far as the official client reads it (sdk PY); the texts are assumed.
NO_SUBSCRIPTION: Final[JsonObject] = {
    "message": "Forbidden",
    "_embedded": {"errors": [{"message": "No active subscription."}]},
}

# One page in the fixture of sdk PY: pixels at 100 DPI, x1, y1, x2, y2.
PAGE_BOX: Final = (0, 0, 850, 1100)
TEXT_BOX: Final = (100, 100, 125, 114)
WORD_BOX: Final = (100, 101, 124, 114)
# Row, column, text of the cells of a table. That they are counted from 1, and the boxes, is assumed.
CELLS: Final = ((1, 1, "Item"), (1, 2, "Price"), (2, 1, "Paper"), (2, 2, "4.50"))
TABLE_BOX: Final = (100, 200, 500, 260)
FILLER: Final = "The quick brown fox jumps over the lazy dog. " * 4 + "\n"


@dataclass(frozen=True, slots=True)
class _Task:
    name: str
    pages: int
    life: Life


class ExpertAiExtractEmulator(VendorEmulator):
    """The emulated expert.ai Extract Beta.

    Attributes:
        subscribed: Whether the user has an active subscription; without one, submit and status return 403.
        result_bytes: Approximate minimum size of a body with a result; layout items are added to reach it.
        token_lifetime_s: Vendor seconds for which a token is valid.
    """

    name = "expertai-extract"
    token_paths: ClassVar[tuple[str, ...]] = (f"/{PREFIX}{TOKEN_PATH}",)

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.subscribed = True
        self.result_bytes = 0
        self.token_lifetime_s: float = TOKEN_LIFETIME_S
        self._user = (f"{random_text(host.random, 8)}@example.com", random_text(host.random, 20))
        self._secret = host.random.randbytes(32)
        self._tokens = BearerTokens(host.clock)
        self._tasks: dict[str, _Task] = {}
        self._samples = self._make_samples()

    def mounts(self) -> Mapping[str, Sequence[BaseRoute]]:
        """The token service and the API, which are different hosts at the vendor."""
        token = routes([("POST", TOKEN_PATH, self._token)], lambda _: None)
        table = [("POST", "/beta/layout-document-async", self._submit), ("GET", "/beta/status/{id}", self._status)]
        return {PREFIX: [*token, *routes(table, self._check)]}

    def settings(self) -> Mapping[str, str]:
        """The user, the API's address up to ``/beta``, and the address of the token service."""
        username, password = self._user
        root = f"{self.host.base_url}/{PREFIX}"
        addresses = {"base_url": f"{root}/beta", "token_url": f"{root}{TOKEN_PATH}"}
        return {"username": username, "password": password, **addresses}

    def samples(self) -> Mapping[str, str]:
        """``partial`` is a success with a page that was not analyzed."""
        return self._samples

    def error_response(self, status: int, path: str) -> Response | None:
        """Only the body of 403 is known."""
        return to_json(NO_SUBSCRIPTION, 403) if status == 403 and path not in self.token_paths else None

    # Token.

    async def _token(self, request: Request) -> Response:
        user = from_json(await request.body()) or {}
        if (user.get("username"), user.get("password")) != self._user:
            return Response(status_code=401)
        # A signed JWT; its ``jti`` makes tokens of the same second differ.
        expiry = int(self.host.clock.time() + self.token_lifetime_s)
        claims = {"exp": expiry, "sub": self._user[0], "jti": random_text(self.host.random, 16)}
        text = ".".join(_base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        token = f"{text}.{_base64url(hmac.digest(self._secret, text.encode(), hashlib.sha256))}"
        self._tokens.add(token, self.token_lifetime_s)
        return PlainTextResponse(token)  # not JSON: doc CLIENT

    def _check(self, request: Request) -> None:
        self._tokens.check(request)
        if not self.subscribed:
            raise ErrorResponse(to_json(NO_SUBSCRIPTION, 403))

    # Tasks.

    async def _submit(self, request: Request) -> Response:
        body = await request.body()
        if len(body) > REQUEST_LIMIT:
            raise ErrorResponse(Response(status_code=413))
        document = as_object((from_json(body) or {}).get("document")) or {}
        name = document.get("name")
        try:
            data = b64decode(document["data"], validate=True)
        except (KeyError, TypeError, ValueError):
            raise ErrorResponse(Response(status_code=400)) from None
        pages = count_pdf_pages(data)
        if not isinstance(name, str):
            raise ErrorResponse(Response(status_code=400))
        if pages > PAGE_LIMIT:
            raise ErrorResponse(Response(status_code=413))  # assumed; the limit itself is doc SUBMIT
        plan = self.host.take_plan(name)
        if (
            PDF_MARK not in data[:PDF_HEAD]
        ):  # PDF only: doc SUBMIT; that the task fails, and not the request, is assumed
            plan = replace(plan, outcome="failed")
        key = self._add(name, pages, Life(self.host.clock.time(), plan))
        return to_json({"taskId": key}, 202)

    async def _status(self, request: Request) -> Response:
        task, now = self._tasks.get(request.path_params["id"]), self.host.clock.time()
        if task is None or task.life.phase(now) == "queued":  # for an unknown id not documented, see CELERY
            return to_json({"current": 0, "message": "pending", "state": "PENDING"})  # the message is assumed
        if task.life.phase(now) != "ended":
            progress = task.life.progress(now)
            message = PHASES[int(progress * len(PHASES))]
            return to_json({"current": int(progress * 100), "message": message, "state": "PROGRESS"})
        match task.life.plan.outcome:
            case "failed":
                message = "page conversion failed"  # assumed
                return to_json({"current": 0, "message": message, "state": "FAILURE"})
            case "cancelled":
                return to_json({"state": "ABORTED"})  # the other fields are unknown, all are optional: sdk PY
            case outcome:
                missing = 1 if outcome == "partial" else 0
                body = _success(task.name, task.pages, missing, task.life.finished_at, self.result_bytes)
                return Response(body, media_type="application/json")

    def _add(self, name: str, pages: int, life: Life) -> str:
        key = str(UUID(int=self.host.random.getrandbits(128), version=4))  # opaque; a UUID is assumed
        self._tasks[key] = _Task(name, pages, Life(life.submitted_at, replace(life.plan, review=0.0)))
        return key

    def _make_samples(self) -> dict[str, str]:
        hour_ago = self.host.clock.time() - 3600
        plans = {
            "completed": Plan(),
            "partial": Plan(outcome="partial"),
            "failed": Plan(outcome="failed"),
            "cancelled": Plan(outcome="cancelled"),
            "processing": Plan(outcome="stuck"),
            "pending": Plan(queued=float("inf")),
        }
        return {label: self._add("test.pdf", 3, Life(hour_ago, plan)) for label, plan in plans.items()}


# Bodies of status responses: doc STATUS.


@lru_cache(maxsize=8)
def _success(name: str, pages: int, missing: int, ended: float, min_size: int) -> bytes:
    """The body of SUCCESS; the last ``missing`` pages have a root but no text."""
    header: JsonObject = {
        "conversionDateTime": f"{datetime.fromtimestamp(ended, UTC):%Y-%m-%d %H:%M}",
        "customInfo": {"Title": name},
        "documentName": name,
        "errorPages": missing,
        "metadata": [],
        "totPages": pages,
        "version": "2.1.1",  # of the engine: sdk PY
    }
    layout, words = list[JsonObject](), list[str]()
    for page in range(1, pages + 1):
        analyzed = page <= pages - missing
        _add_page(layout, page, analyzed=analyzed)
        words.append(_words(page * 2 if analyzed else None, ended))
    if pages - missing > 1:
        _add_table(layout, pages - missing)
    _fill(layout, min_size)
    result: JsonObject = {"header": header, "layout": layout, "words": words}
    body = {"current": 100, "message": "completed", "result": result, "state": "SUCCESS"}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _add_page(layout: list[JsonObject], page: int, *, analyzed: bool) -> None:
    root, text = 2 * page - 1, 2 * page
    children = {"children": [text]} if analyzed else {}
    layout.append({"bbox": PAGE_BOX, **children, "id": root, "page": page, "type": "page"})
    if analyzed:
        layout.append(_item(text, root, page, f"test{page}\n", "H"))


def _add_table(layout: list[JsonObject], page: int) -> None:
    """Add a title and a table to a page, with the keys of a ``LayoutItem`` of sdk PY."""
    root, first = next(item for item in layout if item["page"] == page), layout[-1]["id"] + 1
    title, table, cells = first, first + 1, range(first + 2, first + 2 + len(CELLS))
    root["children"] = [*root["children"], title, table]
    layout.append({**_item(title, root["id"], page, "Prices\n"), "type": "title", "bbox": (100, 160, 300, 180)})
    layout.append({**_item(table, root["id"], page, ""), "type": "table", "bbox": TABLE_BOX, "children": [*cells]})
    for key, (row, column, text) in zip(cells, CELLS, strict=True):
        left, top = 200 * column - 100, 30 * row + 170
        place = {"row": row, "column": column, "isHEad": row == 1, "span": None}
        layout.append(
            {**_item(key, table, page, text), "type": "cell", "bbox": (left, top, left + 200, top + 30), **place}
        )


def _item(key: int, parent: int, page: int, content: str, label: str | None = None) -> JsonObject:
    named = {"label": label} if label else {}
    kind = {"page": page, "parent": parent, "type": "text"}
    return {"bbox": TEXT_BOX, "content": content, "id": key, **named, **kind}


def _fill(layout: list[JsonObject], min_size: int) -> None:
    root, first = layout[0], layout[-1]["id"] + 2
    size = len(json.dumps(_item(1_000_000, root["id"], 1, FILLER), separators=(",", ":")))
    more = range(first, first + -(-min_size // size))
    layout += [_item(key, root["id"], 1, FILLER) for key in more]
    if more:
        root["children"] = [*root.get("children", ()), *more]


def _words(index: int | None, ended: float) -> str:
    """A page's words as base64(gzip(binary)): one word, since the bytes between two words are unknown."""
    word = b"" if index is None else f"test{index // 2}".encode() + b"\0" + struct.pack("<5I", index, *WORD_BOX)
    return b64encode(gzip.compress(word, mtime=int(ended))).decode("ascii")


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
