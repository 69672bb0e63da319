"""Webhooks of the emulated CloudConvert.

Bodies and signatures are those of the WEBHOOKS page; the delays before retries are not published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from taskbridge.emulator.helpers import random_text
from taskbridge.emulator.webhooks import OutgoingWebhook, sign_hex

from .emulator_responses import ApiResponse, page, time_text
from .emulator_tasks import has_passed
from .emulator_validation import invalid, not_found

if TYPE_CHECKING:
    from starlette.requests import Request

    from taskbridge.emulator import Host

    from .emulator_responses import Views
    from .emulator_tasks import NativeJob, TaskStore

VENDOR: Final = "cloudconvert"
SECRET_LENGTH: Final = 32  # characters, as in the signed body of cloudconvert-dotnet's tests
RETRY_DELAYS: Final = (60.0, 300.0, 900.0)  # vendor seconds; "3 more tries" is doc HOOK, the delays are assumed
GONE: Final = 410  # disables the webhook: doc HOOK
ENDS: Final = frozenset({"job.finished", "job.failed"})  # sent to the `webhook_url` of a job: doc JOBS


class JobWebhooks:
    """The webhooks of an account and of single jobs.

    Attributes:
        job_secret: Signs deliveries to a job's own `webhook_url`; that all jobs share one is assumed.
    """

    def __init__(self, host: Host, store: TaskStore, views: Views, api_url: str) -> None:
        self._host = host
        self._store = store
        self._views = views
        self._api_url = api_url
        self._hooks: dict[str, dict[str, Any]] = {}
        self._running: dict[str, NativeJob] = {}
        self.job_secret = random_text(host.random, SECRET_LENGTH)

    # Requests.

    def create(self, _request: Request, body: Mapping[str, Any]) -> ApiResponse:
        """``POST /v2/webhooks``."""
        missing = {field: [f"The {field} field is required."] for field in ("url", "events") if not body.get(field)}
        if missing:
            raise invalid(missing)
        return ApiResponse({"data": self._create(body["url"], body["events"])}, 201)  # the status is assumed

    def add(self, url: str) -> str:
        """Register a webhook for all events, as the dashboard does, and return its signing secret."""
        secret: str = self._create(url, ["job.created", *sorted(ENDS)])["signing_secret"]
        return secret

    def _create(self, url: str, events: list[str]) -> dict[str, Any]:
        webhook_id, now = self._store.new_id(), time_text(self._store.now)
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

    def list(self, request: Request, _body: Mapping[str, Any]) -> ApiResponse:
        """``GET /v2/users/me/webhooks``."""
        url = request.query_params.get("filter[url]")
        hooks = [hook for hook in reversed(self._hooks.values()) if url in {None, hook["url"]}]
        rows, envelope = page(hooks, request.query_params, f"{self._api_url}/users/me/webhooks")
        return ApiResponse({"data": [*rows], **envelope})

    def delete(self, request: Request, _body: Mapping[str, Any]) -> ApiResponse:
        """``DELETE /v2/webhooks/{id}``."""
        if self._hooks.pop(request.path_params["id"], None) is None:
            raise not_found()
        return ApiResponse(status=204)

    # Events.

    def job_created(self, job: NativeJob) -> None:
        """Send the event of a new job."""
        self._running[job.id] = job
        if job.webhook_url is not None:
            self._host.webhooks.enable()
        self._emit("job.created", job)

    def tick(self) -> None:
        """Send the events of jobs that ended since the last call."""
        for job in [*self._running.values()]:
            timeline = self._store.job_timeline(job)
            if job.deleted:
                del self._running[job.id]
            elif has_passed(timeline.ended, self._store.now):
                del self._running[job.id]
                self._emit("job.failed" if timeline.failed else "job.finished", job)

    def _emit(self, event: str, job: NativeJob) -> None:
        hooks = [hook for hook in self._hooks.values() if event in hook["events"] and not hook["disabled"]]
        if not hooks and (job.webhook_url is None or event not in ENDS):
            return
        # Recorded bodies have escaped slashes, and the signature covers them (wire NET HOOK23).
        content = {"event": event, "job": self._views.job(job)}
        body = json.dumps(content, separators=(",", ":")).replace("/", "\\/").encode()
        for hook in hooks:
            self._post(event, hook["url"], body, hook["signing_secret"], hook)
        if job.webhook_url is not None and event in ENDS:
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
                retry_delays=RETRY_DELAYS,
                retry_if=lambda status: status is None or status >= 500,
                on_response=on_response,
            )
        )
