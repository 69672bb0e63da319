"""The application behind `taskbridge serve`: the page, its live updates, two buttons, metrics, health and webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import escape
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import select
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskbridge import __version__
from taskbridge.errors import InvalidInput, TaskbridgeError
from taskbridge.serve.access import COOKIE, Access
from taskbridge.serve.metrics import exposition
from taskbridge.serve.reading import Threads
from taskbridge.serve.texts import safe
from taskbridge.serve.view import Filter, Overview, Reading, Workers, sections, tasks
from taskbridge.store import State, Store, StoreUnavailable
from taskbridge.store.overview import submission_key
from taskbridge.store.schema import ACCOUNT

_HERE: Final = Path(__file__).parent
_UPDATE_PAUSE: Final = 1.0  # seconds between two looks for changes, of a page that is open
_KEEP_ALIVE: Final = 15.0  # seconds without a change after which a comment is sent
_STREAM: Final = 900.0  # seconds after which a page connects again, so that its access is checked again
_MOST_STREAMS: Final = 50
_DIGITS: Final = 19  # more are no number of a row
_MOST_BODY: Final = 8192  # bytes of a form
_FORM_TIME: Final = 10.0  # seconds for a caller to send one
_HEALTH_TIME: Final = 5.0  # seconds
_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

Handler = Callable[[Request, str], Awaitable[Response]]


class Page:
    """The page of one store.

    Args:
        store: The store.
        access: Who may see it.
        workers: Returns what this server does itself.
        failure: Returns what ended its work; None while it works, or if it only shows the page.
        notice: Returns a line for the top of the page; empty for none.
        hooks: Answers webhooks below ``/hooks/``, from any caller; None for no webhooks.
    """

    def __init__(
        self,
        store: Store,
        access: Access,
        workers: Callable[[], Workers],
        *,
        failure: Callable[[], str | None] = lambda: None,
        notice: Callable[[], str] = lambda: "",
        hooks: ASGIApp | None = None,
    ) -> None:
        self._store = store
        self._access = access
        self._workers = workers
        self._failure = failure
        self._notice = notice
        self._overview = Overview(store)
        self._health_threads = Threads("taskbridge-health")
        self._streams = 0
        self._closing = asyncio.Event()
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=safe,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        guarded = self._guarded
        self.app: ASGIApp = _WithHeaders(
            Starlette(
                routes=[
                    Route("/", guarded(self._index)),
                    Route("/live", guarded(self._live)),
                    Route("/submissions/{decision:str}", guarded(self._decide), methods=["POST"]),
                    Route("/metrics", guarded(self._metrics)),
                    Route("/healthz", self._health),
                    Route("/login", self._login, methods=["GET", "POST"]),
                    Route("/logout", guarded(self._logout), methods=["POST"]),
                    Mount("/static", StaticFiles(directory=_HERE / "static")),
                    *([] if hooks is None else [Mount("/hooks", hooks)]),
                ],
                exception_handlers={StoreUnavailable: self._unavailable},
            )
        )
        """The ASGI application."""

    def close(self) -> None:
        """End the live updates of the pages that are open, and read nothing more; returns at once."""
        self._closing.set()
        self._overview.close()
        self._health_threads.close()

    # The page.

    async def _index(self, request: Request, user: str) -> Response:
        chosen = Filter.of(request.query_params)
        reading = await self._overview.read()
        fragments = await self._fragments(chosen, reading, user)
        return self._render(
            "page.html",
            fragments=fragments,
            store=escape(self._store.database.name),  # without a user or a password
            version=__version__,
            chosen=chosen,
            states=list(State),
            connections=[each.connection for each in reading.accounts],
            live=f"/live?{chosen.query()}",
            user=user,
            form_token=self._access.form_token(user),
            can_log_out=self._access.has_token and user == "token",
        )

    async def _fragments(self, chosen: Filter, reading: Reading, user: str) -> dict[str, str]:
        """Return the HTML of each section."""
        now = self._now()
        found = await self._overview.find(chosen)
        data = sections(reading, self._workers(), now)
        data["tasks"] = {"rows": tasks(found.watches, reading, now), "more": found.more, "chosen": chosen}
        data["notice"] = {"text": self._failure() or self._notice()}
        token = self._access.form_token(user)
        return {name: self._html(f"_{name}.html", form_token=token, **values) for name, values in data.items()}

    def _now(self) -> datetime:
        """Return the time by the clock that the store's times follow."""
        return datetime.fromtimestamp(self._store.database.now(), UTC)

    def _html(self, name: str, **values: Any) -> str:
        return self._templates.get_template(name).render(values)

    def _render(self, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        return HTMLResponse(self._html(name, **values), status)

    # Its live updates.

    async def _live(self, request: Request, user: str) -> Response:
        if self._streams >= _MOST_STREAMS:
            return PlainTextResponse("too many pages are open\n", 503, {"retry-after": "30"})
        stream = self._events(Filter.of(request.query_params), user)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def _events(self, chosen: Filter, user: str) -> AsyncIterator[str]:
        """Yield each section when it has changed."""
        loop = asyncio.get_running_loop()
        ends, quiet_since = loop.time() + _STREAM, loop.time()
        shown: dict[str, str] = {}
        self._streams += 1
        try:
            while not self._closing.is_set() and loop.time() < ends:
                try:
                    fragments = await self._fragments(chosen, await self._overview.read(), user)
                except StoreUnavailable as error:
                    fragments = {"notice": self._html("_notice.html", text=error.message, form_token="")}  # none
                for name, html in fragments.items():
                    if shown.get(name) != html:
                        shown[name], quiet_since = html, loop.time()
                        yield _event(name, html)
                if loop.time() - quiet_since > _KEEP_ALIVE:
                    quiet_since = loop.time()
                    yield ": nothing has changed\n\n"
                await _wait(self._closing, _UPDATE_PAUSE)
        finally:
            self._streams -= 1

    # Its two buttons.

    async def _decide(self, request: Request, user: str) -> Response:
        form = await _form(request)
        decide = {"resubmit": self._store.resubmit, "forget": self._store.forget}.get(request.path_params["decision"])
        number = "" if form is None else form.get("submission", "")
        if form is None or decide is None or not (number.isascii() and number.isdigit() and len(number) < _DIGITS):
            return self._message(400, "This is no form of this page.")
        if not self._access.is_own_form(request, user, form.get("form_token", "")):
            return self._refuse_form(request)
        try:
            await asyncio.to_thread(self._decide_by_number, decide, int(number))
        except InvalidInput as error:
            return self._message(409, f"Nothing was changed: {error.message}.")
        await self._overview.read(fresh=True)
        return RedirectResponse("/#attention", 303)

    def _decide_by_number(self, decide: Callable[[str, str], object], number: int) -> None:
        with self._store.database.reading() as opened:
            found = submission_key(opened, number)
        if found is None:
            raise InvalidInput("the store has no such submission")
        decide(*found)

    # Access.

    def _guarded(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Let a handler answer only those who may see the page."""

        async def guard(request: Request) -> Response:
            refusal = self._access.refusal(request)
            if refusal:
                return self._message(403, refusal)
            user = self._access.user_of(request)
            if user is not None:
                return await handler(request, user)
            if not self._access.has_token:
                return self._message(403, "Access only from this machine, or through the reverse proxy.")
            if request.method == "GET" and request.url.path == "/":
                return RedirectResponse("/login", 303)
            return PlainTextResponse("log in, or send the token\n", 401, {"www-authenticate": "Bearer"})

        return guard

    async def _login(self, request: Request) -> Response:
        if not self._access.has_token:
            return self._message(404, "There is nothing to log in to.")
        if request.method == "GET":
            return self._render("login.html", problem="")
        form = await _form(request)
        if form is None:
            return self._message(400, "This is no form of this page.")
        if not self._access.is_same_site(request):
            return self._refuse_form(request)
        if not self._access.is_token(form.get("token", "")):
            return self._render("login.html", 401, problem="That is not the token.")
        response = RedirectResponse("/", 303)
        self._access.log_in(request, response)
        return response

    async def _logout(self, request: Request, user: str) -> Response:
        form = await _form(request)
        if form is None or not self._access.is_own_form(request, user, form.get("form_token", "")):
            return self._refuse_form(request)
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    def _refuse_form(self, request: Request) -> Response:
        if self._access.is_host_changed(request):
            return self._message(
                403,
                "This form is of another site, or the reverse proxy changes the header Host: it must pass it on "
                "unchanged (nginx: proxy_set_header Host $http_host).",
            )
        return self._message(403, "This form is not of this page, or of an earlier run of the server. Reload the page.")

    # For other programs.

    async def _metrics(self, request: Request, user: str) -> Response:
        del request, user
        content = exposition(await self._overview.read(), self._workers(), self._now())
        return Response(content, media_type=CONTENT_TYPE_LATEST)

    async def _health(self, request: Request) -> Response:
        del request
        problem = "the work has ended" if self._failure() else ""
        try:
            async with asyncio.timeout(_HEALTH_TIME):
                await self._health_threads.run(self._read_once)
        except (StoreUnavailable, TimeoutError):
            problem = "the store cannot be read"
        return JSONResponse({"status": problem or "ok"}, 503 if problem else 200)

    def _read_once(self) -> None:
        with self._store.database.reading() as opened:
            opened.execute(select(ACCOUNT.c.connection).limit(1)).all()

    async def _unavailable(self, request: Request, error: Exception) -> Response:
        del request
        return self._message(503, error.message if isinstance(error, TaskbridgeError) else "The store cannot be read.")

    def _message(self, status: int, text: str) -> Response:
        return self._render("message.html", status, text=text)


class _WithHeaders:
    """Adds the same headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if scope["path"].startswith("/static/"):
                    headers["cache-control"] = "no-cache"
            await send(message)

        await self._app(scope, receive, send_with_headers)


async def _form(request: Request) -> dict[str, str] | None:
    """Return the fields of a form; None if it is none, or too large, or takes too long to arrive."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        return None
    body = bytearray()
    try:
        async with asyncio.timeout(_FORM_TIME):
            async for part in request.stream():
                body += part
                if len(body) > _MOST_BODY:
                    return None
    except TimeoutError:
        return None
    try:
        return {name: values[0] for name, values in parse_qs(body.decode(), max_num_fields=20, errors="strict").items()}
    except ValueError:
        return None


def _event(name: str, html: str) -> str:
    """Return a server-sent event."""
    lines = "".join(f"data: {line}\n" for line in html.splitlines())
    return f"event: {name}\n{lines}\n"


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
