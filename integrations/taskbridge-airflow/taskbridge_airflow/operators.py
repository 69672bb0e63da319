"""The operator: submits a document, waits in the triggerer, and downloads the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

import taskbridge as tb
from taskbridge_airflow._events import ended_task, event_of
from taskbridge_airflow._submissions import NoStateStore, StateStore, mark_done, submit_once
from taskbridge_airflow.hooks import TaskbridgeHook
from taskbridge_airflow.triggers import TaskbridgeTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class TaskbridgeOperator(BaseOperator):
    """Submits a document to a vendor, waits until its task has ended, and downloads the results.

    The wait takes place in the triggerer, so no worker is occupied. A retry does not submit twice: it continues with
    the task of the try before, or searches the vendor for it.

    Returns, as XCom: ``ref``; ``task``, the last snapshot as plain JSON without links and contents; and ``files``, the
    paths or URLs of the downloads. The XCom ``ref`` is there from the submission on.

    Args:
        operation: A neutral operation, such as ``extract-text``, or one of the vendor's own as ``native:…``. Templated,
            as are all that follow up to `download_to`.
        document: Path of a file that the worker can read, a URL, or several of these for operations that join
            documents; None if the options name the document.
        to: Neutral option: the format of the result, such as ``pdf``.
        text_format: Neutral option: ``plain``, ``markdown`` or ``html``.
        language: Neutral option: language of the document, such as ``de``.
        pages: Neutral option: pages of the document, such as ``1,3,5-8``.
        dpi: Neutral option: resolution of the images, in dots per inch.
        options: The vendor's own options, verbatim.
        external_id: Your own id for the task, where the vendor keeps one.
        document_name: File name of the document at the vendor; by default the file's own name.
        taskbridge_conn_id: Id of the connection of Airflow.
        download_to: Folder for the results, or the URL of one in a storage, such as ``s3://bucket/results``; None
            downloads nothing.
        overwrite: Whether a download replaces existing files; without it, a retry fails where the try before already
            downloaded.
        wait_timeout: Maximum seconds to wait for the end of the task; None for no deadline. A retry waits anew.
        settle: Seconds after which a submission of an interrupted try that the vendor cannot find was not accepted.
        resubmit_uncertain: Whether to submit again if a try was interrupted while it submitted and the vendor cannot be
            searched, which may start and cost a second task.
        cancel_on_kill: Whether to cancel the task at the vendor if the task is killed, marked or cleared in Airflow.
        deferrable: Whether to wait in the triggerer; otherwise the worker waits.
        kwargs: As for every operator of Airflow.
    """

    template_fields: Sequence[str] = (
        "operation",
        "document",
        "to",
        "text_format",
        "language",
        "pages",
        "dpi",
        "options",
        "external_id",
        "document_name",
        "taskbridge_conn_id",
        "download_to",
    )
    template_fields_renderers = {"options": "json"}  # noqa: RUF012  # as in BaseOperator
    ui_color = "#e4ecf7"

    def __init__(
        self,
        *,
        operation: str | None = None,
        document: str | Sequence[str] | None = None,
        to: str | None = None,
        text_format: str | None = None,
        language: str | None = None,
        pages: str | int | None = None,
        dpi: int | None = None,
        options: Mapping[str, Any] | None = None,
        external_id: str | None = None,
        document_name: str | None = None,
        taskbridge_conn_id: str = TaskbridgeHook.default_conn_name,
        download_to: str | None = None,
        overwrite: bool = True,
        wait_timeout: float | None = None,
        settle: float = 120.0,
        resubmit_uncertain: bool = False,
        cancel_on_kill: bool = False,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.operation = operation
        self.document = document
        self.to = to
        self.text_format = text_format
        self.language = language
        self.pages = pages
        self.dpi = dpi
        self.options = options
        self.external_id = external_id
        self.document_name = document_name
        self.taskbridge_conn_id = taskbridge_conn_id
        self.download_to = download_to
        self.overwrite = overwrite
        self.wait_timeout = wait_timeout
        self.settle = settle
        self.resubmit_uncertain = resubmit_uncertain
        self.cancel_on_kill = cancel_on_kill
        self.deferrable = deferrable
        self._ref: str | None = None

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: RET503  # defer raises
        """Submit the document, and wait for its task.

        Raises:
            AirflowException: The task failed, or it is not known how it ended.
            AirflowFailException: An earlier try may have submitted, and the vendor cannot be searched.
            TaskbridgeError: The submission failed.
        """
        with self._hook.get_conn() as client:
            task, submitted_at = submit_once(
                client,
                _state(context),
                lambda before_submit: self._submit(client, before_submit),
                self.document,
                settle=self.settle,
                resubmit_uncertain=self.resubmit_uncertain,
                log=self.log,
            )
            self._ref = str(task.ref)
            context["ti"].xcom_push(key="ref", value=self._ref)
            if not task.is_terminal and not self.deferrable:
                try:
                    task = client.wait(task, timeout=self.wait_timeout)
                except tb.WaitTimeout as error:
                    ended_task(event_of(self._ref, error.task, error))
            if task.is_terminal:
                return self._finish(client, task, event_of(self._ref, task), context)
        self.defer(
            trigger=TaskbridgeTrigger(
                self.taskbridge_conn_id,
                self._ref,
                deadline=None if self.wait_timeout is None else datetime.now(UTC).timestamp() + self.wait_timeout,
                submitted_at=submitted_at,
                cancel_on_kill=self.cancel_on_kill,
            ),
            method_name="execute_complete",
        )

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Continue when the trigger has fired.

        Raises:
            AirflowException: The task failed, or it is not known how it ended.
            TaskbridgeError: The results cannot be downloaded.
        """
        ended_task(event)  # raises without a request
        with self._hook.get_conn() as client:
            return self._finish(client, event["ref"], event, context)

    def on_kill(self) -> None:
        """Cancel the task at the vendor, if that was asked for."""
        if self.cancel_on_kill and self._ref is not None:
            with self._hook.get_conn() as client:
                self.log.info("cancel: %s", client.cancel(self._ref))

    @property
    def _hook(self) -> TaskbridgeHook:
        return TaskbridgeHook(self.taskbridge_conn_id)

    def _submit(self, client: tb.Client, before_submit: Callable[[Mapping[str, Any]], object]) -> tb.Task:
        names = ("to", "text_format", "language", "pages", "dpi")
        neutral: Any = {name: value for name in names if (value := getattr(self, name)) is not None}
        document: Any = self.document if isinstance(self.document, str | None) else list(self.document)
        return client.submit(
            self.operation,
            document,
            options=self.options,
            external_id=self.external_id,
            name=self.document_name,
            before_submit=before_submit,
            **neutral,
        )

    def _finish(
        self, client: tb.Client, task: tb.Task | str, event: Mapping[str, Any], context: Context
    ) -> dict[str, Any]:
        ended = ended_task(event)
        files: list[str] = []
        if self.download_to is not None:
            saved = client.download(task, self.download_to, overwrite=self.overwrite)
            files = [str(each) for each in saved]
            self.log.info("downloaded %s", files)
        mark_done(_state(context), event["ref"])
        return {"ref": event["ref"], "task": ended, "files": files}


def _state(context: Context) -> StateStore:
    found: StateStore | None = context.get("task_state_store")
    return NoStateStore() if found is None else found
