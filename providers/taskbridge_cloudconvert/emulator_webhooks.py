"""Webhooks of the emulated CloudConvert: who wants to hear of jobs, and what is sent.

Bodies and signatures are those of the WEBHOOKS page; how long the vendor waits before it sends again is not published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from taskbridge.emulator.helpers import random_text
from taskbridge.emulator.webhooks import OutgoingWebhook, sign_hex

from .emulator_checks import invalid, not_found
from .emulator_tasks import reached
from .emulator_wire import Answer, page, time_text

if TYPE_CHECKING:
    from starlette.requests import Request

    from taskbridge.emulator import Host

    from .emulator_tasks import Book, NativeJob
    from .emulator_wire import Views

__all__ = ["Hooks"]

VENDOR: Final = "cloudconvert"
SECRET_LENGTH: Final = 32  # characters, as in the signed body of cloudconvert-dotnet's tests
PAUSES: Final = (60.0, 300.0, 900.0)  # vendor seconds; "3 more tries" is doc HOOK, the times are assumed
GONE: Final = 410  # disables the webhook: doc HOOK
OF_A_JOB: Final = frozenset({"job.finished", "job.failed"})  # what `webhook_url` of a job hears: doc JOBS


class Hooks:
    """The webhooks of an account and of single jobs.

    Args:
        host: Clock, source of secrets, and courier.
        book: What there is.
        views: How it is shown.
        api_url: The API's address, for ``links.self``.

    Attributes:
        job_secret: What deliveries to a job's own `webhook_url` are signed with; that it is one for all is assumed.
    """

    def __init__(self, host: Host, book: Book, views: Views, api_url: str) -> None:
        self._host = host
        self._book = book
        self._views = views
        self._api_url = api_url
        self._hooks: dict[str, dict[str, Any]] = {}
        self._running: dict[str, NativeJob] = {}
        self.job_secret = random_text(host.random, SECRET_LENGTH)

    # Calls.

    def create(self, _request: Request, body: Mapping[str, Any]) -> Answer:
        """``POST /v2/webhooks``."""
        missing = {field: [f"The {field} field is required."] for field in ("url", "events") if not body.get(field)}
        if missing:
            raise invalid(missing)
        return Answer({"data": self._create(body["url"], body["events"])}, 201)  # the status is assumed

    def add(self, url: str) -> str:
        """Register a webhook for all events, as the dashboard does; its signing secret."""
        secret: str = self._create(url, ["job.created", *sorted(OF_A_JOB)])["signing_secret"]
        return secret

    def _create(self, url: str, events: list[str]) -> dict[str, Any]:
        webhook_id, now = self._book.new_id(), time_text(self._book.now)
        self._hooks[webhook_id] = {
            "id": webhook_id,
            "url": url,
            "disabled": False,
            "failing": False,
            "events": events,
            "signing_secret": random_text(self._host.random, SECRET_LENGTH),
            "created_at": now,
            "updated_at": now,
            "links": {"self": f"{self._api_url}/webhooks/{webhook_id}"},
        }
        self._host.webhooks.enable()
        return self._hooks[webhook_id]

    def list(self, request: Request, _body: Mapping[str, Any]) -> Answer:
        """``GET /v2/users/me/webhooks``."""
        url = request.query_params.get("filter[url]")
        hooks = [hook for hook in reversed(self._hooks.values()) if url in {None, hook["url"]}]
        here, around = page(hooks, request.query_params, f"{self._api_url}/users/me/webhooks")
        return Answer({"data": [*here], **around})

    def delete(self, request: Request, _body: Mapping[str, Any]) -> Answer:
        """``DELETE /v2/webhooks/{id}``."""
        if self._hooks.pop(request.path_params["id"], None) is None:
            raise not_found()
        return Answer(status=204)

    # Events.

    def began(self, job: NativeJob) -> None:
        """A job was created."""
        self._running[job.id] = job
        if job.webhook_url is not None:
            self._host.webhooks.enable()
        self._tell("job.created", job)

    def tick(self) -> None:
        """Tell of the jobs that ended since the last time."""
        for job in [*self._running.values()]:
            life = self._book.job_life(job)
            if job.deleted:
                del self._running[job.id]
            elif reached(life.ended, self._book.now):
                del self._running[job.id]
                self._tell("job.failed" if life.failed else "job.finished", job)

    def _tell(self, event: str, job: NativeJob) -> None:
        wanted = [hook for hook in self._hooks.values() if event in hook["events"] and not hook["disabled"]]
        if not wanted and (job.webhook_url is None or event not in OF_A_JOB):
            return
        # The slashes are escaped in recorded bodies, and the signature covers them as they are (wire NET HOOK23).
        said = {"event": event, "job": self._views.job(job)}
        body = json.dumps(said, separators=(",", ":")).replace("/", "\\/").encode()
        for hook in wanted:
            self._post(event, hook["url"], body, hook["signing_secret"], hook)
        if job.webhook_url is not None and event in OF_A_JOB:
            self._post(event, job.webhook_url, body, self.job_secret, {})

    def _post(self, event: str, url: str, body: bytes, secret: str, hook: dict[str, Any]) -> None:
        def on_response(status: int | None) -> None:
            hook["failing"] = status is None or status >= 300  # when exactly is assumed
            hook["disabled"] = hook.get("disabled", False) or status == GONE

        self._host.webhooks.send(
            OutgoingWebhook(
                VENDOR,
                event,
                url,
                body,
                headers=lambda _: {"CloudConvert-Signature": sign_hex(secret, body)},
                retry_delays=PAUSES,
                retry_if=lambda status: status is None or status >= 500,
                on_response=on_response,
            )
        )
