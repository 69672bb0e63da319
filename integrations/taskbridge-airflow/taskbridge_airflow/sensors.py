"""The sensor: waits for a task that something else submitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowSensorTimeout

import taskbridge as tb
from taskbridge_airflow._events import ended_task, event_of
from taskbridge_airflow.hooks import TaskbridgeHook
from taskbridge_airflow.triggers import TaskbridgeTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class TaskbridgeSensor(BaseSensorOperator):
    """Waits until a task has completed, and returns it as XCom: plain JSON without links and contents.

    It fails if the task failed, or if the vendor does not know it. `timeout` is that of every sensor.

    Args:
        ref: The task: ``provider:id``, as the XCom ``ref`` of `TaskbridgeOperator`. Templated.
        taskbridge_conn_id: Id of the connection of Airflow. Templated.
        deferrable: Whether to wait in the triggerer; otherwise a worker gets the status every ``poke_interval``.
        kwargs: As for every sensor of Airflow.
    """

    template_fields: Sequence[str] = ("ref", "taskbridge_conn_id")
    ui_color = "#e4ecf7"

    def __init__(
        self,
        *,
        ref: str,
        taskbridge_conn_id: str = TaskbridgeHook.default_conn_name,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.ref = ref
        self.taskbridge_conn_id = taskbridge_conn_id
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:  # noqa: RET503  # defer raises
        """Wait for the task, in the triggerer if the sensor is deferrable.

        Raises:
            AirflowException: The task failed, or it is not known how it ended.
        """
        if not self.deferrable:
            return super().execute(context)
        self.defer(
            trigger=TaskbridgeTrigger(
                self.taskbridge_conn_id, self.ref, deadline=datetime.now(UTC).timestamp() + self.timeout
            ),
            method_name="execute_complete",
        )

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002  # as Airflow calls it
        """Continue when the trigger has fired.

        Raises:
            AirflowSensorTimeout: The task has not ended in time.
            AirflowException: The task failed, or it is not known how it ended.
        """
        error = event["error"]
        if error is not None and error["type"] == "WaitTimeout":
            raise AirflowSensorTimeout(error["message"])
        return ended_task(event)

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002  # as Airflow calls it
        """Get the status of the task once.

        Raises:
            AirflowException: The task failed.
            TaskbridgeError: The vendor refuses, or does not know the task.
        """
        with TaskbridgeHook(self.taskbridge_conn_id).get_conn() as client:
            try:
                task = client.get(self.ref)
            except tb.TaskbridgeError as error:
                if not error.retryable:
                    raise
                self.log.warning("the status of the task is not known for now: %s", error)
                return PokeReturnValue(is_done=False)
        self.log.info("%s", task)
        if not task.is_terminal:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=ended_task(event_of(self.ref, task)))
