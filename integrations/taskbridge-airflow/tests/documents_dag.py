"""The DAGs of `test_real_airflow.py`; the example is the one of the documentation."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, task

import taskbridge as tb
from taskbridge_airflow.operators import TaskbridgeOperator
from taskbridge_airflow.sensors import TaskbridgeSensor


class KilledOperator(TaskbridgeOperator):
    """Kills its worker once, after the vendor has accepted the submission and before Airflow knows of it."""

    def _submit(self, client: tb.Client, before_submit: Callable[[Mapping[str, Any]], object]) -> tb.Task:
        submitted = super()._submit(client, before_submit)
        marker = os.environ["KILLED_ONCE"]
        if not os.path.exists(marker):  # noqa: PTH110  # short
            with open(marker, "w", encoding="utf-8"):  # noqa: PTH123  # as above
                pass
            os.kill(os.getpid(), signal.SIGKILL)
        return submitted


with DAG("documents", schedule="@once", start_date=datetime(2026, 1, 1), catchup=False):  # noqa: DTZ001  # as in Airflow's docs
    convert = TaskbridgeOperator.partial(
        task_id="convert",
        operation="convert",
        to="docx",
        taskbridge_conn_id="documents",
        download_to="{{ var.value.results }}/{{ run_id[:9] }}/{{ ti.map_index }}",
    ).expand(document=["{{ var.value.inbox }}/a.pdf", "{{ var.value.inbox }}/b.pdf", "{{ var.value.inbox }}/c.pdf"])
    killed = KilledOperator(
        task_id="killed",
        operation="convert",
        document="{{ var.value.inbox }}/killed.pdf",
        to="docx",
        taskbridge_conn_id="documents",
        download_to="{{ var.value.results }}/killed",
        retries=2,
        retry_delay=timedelta(seconds=1),
    )
    wait = TaskbridgeSensor(
        task_id="wait",
        ref="{{ ti.xcom_pull(task_ids='killed', key='ref') }}",
        taskbridge_conn_id="documents",
    )

    @task
    def check(results: list[dict[str, Any]]) -> int:
        """Use the XComs of the mapped operator."""
        assert [each["task"]["status"] for each in results] == ["completed"] * 3
        return len(results)

    killed >> wait
    check(convert.output)  # type: ignore[arg-type]  # Airflow resolves it
