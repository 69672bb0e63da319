"""The trigger: waits for one task, by the poller that all triggers of the triggerer share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from airflow.triggers.base import BaseTrigger, TriggerEvent

import taskbridge as tb
from taskbridge_airflow._events import event_of
from taskbridge_airflow._poller import shared_poller
from taskbridge_airflow.hooks import TaskbridgeHook

_LEAST_WAIT: Final = 10.0  # seconds: one poll of a task whose time ran out while no triggerer ran


class TaskbridgeTrigger(BaseTrigger):
    """Fires once, when a task has completed or failed, when its vendor refuses, or at a deadline.

    The payload of the event is plain JSON: the ``ref``; the last snapshot of the ``task``, without links and contents;
    and an ``error`` with ``type`` and ``message``, or None.

    Args:
        taskbridge_conn_id: Id of the connection of Airflow.
        ref: The task.
        deadline: When to give up, in seconds since the epoch; None for never. It also holds in another triggerer.
        submitted_at: When the task was submitted, in seconds since the epoch, if that is known.
        cancel_on_kill: Whether to cancel the task at the vendor if a user stops the deferred task in Airflow.
    """

    def __init__(
        self,
        taskbridge_conn_id: str,
        ref: str,
        deadline: float | None = None,
        submitted_at: float | None = None,
        cancel_on_kill: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.taskbridge_conn_id = taskbridge_conn_id
        self.ref = ref
        self.deadline = deadline
        self.submitted_at = submitted_at
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of this class and its arguments."""
        return (
            "taskbridge_airflow.triggers.TaskbridgeTrigger",
            {
                "taskbridge_conn_id": self.taskbridge_conn_id,
                "ref": self.ref,
                "deadline": self.deadline,
                "submitted_at": self.submitted_at,
                "cancel_on_kill": self.cancel_on_kill,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the task, and yield one event."""
        try:
            event = await self._wait()
        except tb.TaskbridgeError as error:
            event = event_of(self.ref, None, error)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]  # Airflow's

    async def _wait(self) -> dict[str, Any]:
        provider, settings = await TaskbridgeHook(self.taskbridge_conn_id).aget_settings()
        submitted_at = None if self.submitted_at is None else datetime.fromtimestamp(self.submitted_at, UTC)
        now = datetime.now(UTC).timestamp()
        seconds = None if self.deadline is None else max(_LEAST_WAIT, self.deadline - now)
        async with shared_poller(provider, settings) as poller, poller.waiting(self.ref, submitted_at) as waiter:
            try:
                async with asyncio.timeout(seconds):
                    outcome = await waiter.end()
            except TimeoutError:
                state = "the task was not seen yet" if waiter.task is None else waiter.task.describe()
                late = tb.WaitTimeout(f"the time to wait for the task ran out: {state}", ref=self.ref)
                return event_of(self.ref, waiter.task, late)
        return event_of(self.ref, waiter.task, outcome.error)

    async def on_kill(self) -> None:
        """Cancel the task at the vendor, if that was asked for."""
        if not self.cancel_on_kill:
            return
        provider, settings = await TaskbridgeHook(self.taskbridge_conn_id).aget_settings()
        async with tb.aio.connect(provider, **settings) as client:
            await client.cancel(self.ref)
            self.log.info("canceled %s at the vendor", self.ref)
