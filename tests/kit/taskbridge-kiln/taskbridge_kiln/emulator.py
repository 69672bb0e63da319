"""An emulator of the Kiln API v1, an invented vendor; times in seconds.

It shares no table with the provider, or both would contain the same mistake.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from taskbridge.emulator import Plan, VendorEmulator
from taskbridge.emulator.helpers import (
    ErrorResponse,
    JsonObject,
    Life,
    from_multipart,
    random_text,
    routes,
    to_json,
    utc_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from taskbridge.emulator import Host

__all__ = ["KilnEmulator"]

PREFIX: Final = "kiln"
LONGEST_PAUSE: Final = 60.0  # the longest that a caller is asked to wait
LONGEST_HOLD: Final = 60.0
CHECK_INTERVAL: Final = 0.005  # seconds of real time between two checks of a request that is held

# HTTP status -> code and text of an error response.
ERRORS: Final[Mapping[int, tuple[str, str]]] = {
    401: ("key", "The API key is not known."),
    404: ("missing", "There is no such job."),
    422: ("form", "A field is missing or invalid."),
}


@dataclass(slots=True)
class _Job:
    id: str
    name: str
    life: Life


class KilnEmulator(VendorEmulator):
    """The emulated Kiln."""

    name = "kiln"

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._key = random_text(host.random, 32)
        self._jobs: dict[str, _Job] = {}
        self._samples = self._make_samples()

    def mounts(self) -> Mapping[str, Sequence[BaseRoute]]:
        """The API calls that the provider makes."""
        table = [("POST", "/v1/jobs", self._create), ("GET", "/v1/jobs/{id}", self._get)]
        return {PREFIX: routes(table, self._check)}

    def settings(self) -> Mapping[str, str]:
        """The key, and the base URL up to ``/v1``."""
        return {"api_key": self._key, "base_url": f"{self.host.base_url}/{PREFIX}/v1"}

    def samples(self) -> Mapping[str, str]:
        """A job for each answer."""
        return self._samples

    def _check(self, request: Request) -> None:
        if request.headers.get("x-api-key") != self._key:
            raise _error(401)

    # Calls.

    async def _create(self, request: Request) -> Response:
        form = from_multipart(await request.body(), request.headers.get("content-type", ""))
        if "document" not in form or "operation" not in form or form["operation"].data != b"read":
            raise _error(422)
        name = form["document"].filename or "document"
        return self._show(self._add(name, self.host.take_plan(name)))

    async def _get(self, request: Request) -> Response:
        job = self._jobs.get(request.path_params["id"])
        if job is None:
            raise _error(404)
        hold = min(float(request.query_params.get("hold", 0)), LONGEST_HOLD)
        until = self.host.clock.time() + hold
        while not self._is_over(job) and self.host.clock.time() < until and not await request.is_disconnected():
            await self.host.clock.hold(CHECK_INTERVAL)
        return self._show(job, says_when=hold == 0)

    # Jobs.

    def _add(self, name: str, plan: Plan, age: float = 0.0) -> _Job:
        key = f"k_{random_text(self.host.random, 12)}"
        self._jobs[key] = _Job(key, name, Life(self.host.clock.time() - age, plan))
        return self._jobs[key]

    def _is_over(self, job: _Job) -> bool:
        return job.life.phase(self.host.clock.time()) == "ended"

    def _show(self, job: _Job, *, says_when: bool = True) -> Response:
        now, life = self.host.clock.time(), job.life
        shown: JsonObject = {"job": job.id, "operation": "read", "made": utc_text(life.submitted_at, 3)}
        if self._is_over(job):
            failed = life.plan.outcome in ("failed", "cancelled")
            over = {"fault": {"code": "cracked", "text": f"{job.name} cannot be read."}} if failed else None
            return to_json({**shown, **(over or {"text": f"Text of {job.name}"})})
        is_queued = life.phase(now) == "queued"
        pause = min((life.started_at if is_queued else life.finished_at) - now, LONGEST_PAUSE)
        says_when = says_when and pause >= 1.0
        if says_when and not is_queued:
            shown["ask_in"] = round(pause, 1)
        response = to_json(shown, 202)
        if says_when and is_queued:
            response.headers["Retry-After"] = str(round(pause))
        return response

    # Samples.

    def _make_samples(self) -> dict[str, str]:
        plans = {
            "completed": Plan(),
            "failed": Plan(outcome="failed"),
            "processing": Plan(outcome="stuck"),
            "queued": Plan(queued=float("inf")),
        }
        return {label: self._add("letter.pdf", plan, age=3600).id for label, plan in plans.items()}


def _error(status: int) -> ErrorResponse:
    code, text = ERRORS[status]
    return ErrorResponse(to_json({"code": code, "text": text}, status))
