"""A vendor whose status request is answered with 303 once the work is done: the flow reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse

from taskbridge.models import Task, TaskFile, TaskResult, TaskStatus
from taskbridge.provider import Downloads, Flow, path_id
from taskbridge.testing import ProviderConformance

from .plain import PlainEmulator, PlainProvider


class RedirectedProvider(PlainProvider):
    """303 leads to the result, which is a file behind a link."""

    capabilities = replace(PlainProvider.capabilities, downloads=Downloads(("files",), links=True), result_parts={})

    def get(self, task_id: str) -> Flow[Task]:
        response = yield self.request("GET", f"/tasks/{path_id(task_id)}")
        if response.status != 303:
            return self.task(self.payload(response), task_id)
        return Task(
            provider=self.name,
            connection=self.connection,
            id=task_id,
            native_id=task_id,
            observed_at=response.received_at,
            status=TaskStatus.COMPLETED,
            native_status="303",
            result=TaskResult(files=(TaskFile(name="text.txt", url=response.headers["location"]),)),
        )


class RedirectingEmulator(PlainEmulator):
    """Redirects to the result, on a host for files."""

    def calls(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [*super().calls(), ("GET", "/files/{id}", self.file)]

    def check(self, request: HttpRequest) -> None:
        if "/files/" not in request.url.path:
            super().check(request)

    async def status(self, request: HttpRequest) -> HttpResponse:
        task = self.find(request)
        if self.state(task) != "done":
            return await super().status(request)
        return HttpResponse(status_code=303, headers={"Location": f"{self.host.storage_url}/plain/v1/files/{task.id}"})

    async def file(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(self.text(self.find(request)), media_type="text/plain")


class TestRedirectMeansDone(ProviderConformance):
    provider = RedirectedProvider
    emulator_class = RedirectingEmulator
