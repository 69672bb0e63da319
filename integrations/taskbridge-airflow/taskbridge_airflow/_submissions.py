"""Submits once per run of an Airflow task, also if the worker is killed and the task is tried again.

Airflow's task state store outlives a try. Before a submission is sent, its recovery token is stored there; afterwards,
its ref. The next try continues with the ref, or searches the vendor for the submission of the token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from airflow.sdk.exceptions import AirflowFailException

import taskbridge as tb

KEY: Final = "taskbridge"
"""Key in the task state store."""


class StateStore(Protocol):
    """The part of Airflow's task state store that is needed here."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value."""

    def set(self, key: str, value: Any) -> None:
        """Store a value of plain JSON."""

    def delete(self, key: str) -> None:
        """Delete a value."""


class NoStateStore:
    """Stands in where Airflow gives none, as in ``dag.test()`` of some versions: nothing outlives the try."""

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ARG002  # as the real one
        """Return the default."""
        return default

    def set(self, key: str, value: Any) -> None:
        """Do nothing."""

    def delete(self, key: str) -> None:
        """Do nothing."""


def submit_once(
    client: tb.Client,
    state: StateStore,
    submit: Callable[[Callable[[Mapping[str, Any]], object]], tb.Task],
    document: Any,
    *,
    settle: float,
    resubmit_uncertain: bool,
    log: Any,
) -> tuple[tb.Task, float]:
    """Return the task of this run's submission, and when it was submitted; submit it if no earlier try did.

    Args:
        client: The client of the connection.
        state: Outlives the try.
        submit: Submits, and calls its argument with the recovery token before that.
        document: The document, which CloudConvert may still need.
        settle: Seconds after which a submission that the vendor cannot find was not accepted.
        resubmit_uncertain: Whether to submit again where the vendor cannot be searched.
        log: Gets what was decided.

    Returns:
        The task; seconds since the epoch.

    Raises:
        AirflowFailException: The vendor may or may not have the submission, which cannot be found out.
        SubmitUncertain: The vendor may or may not have the submission; a later try can find out.
        TaskbridgeError: The vendor refuses, or cannot be reached.
    """
    before = state.get(KEY) or {}
    if "ref" in before and not before.get("done"):
        task = _continued(client, before["ref"], before["at"], log)
    elif "token" in before:
        task = _recovered(client, before, document, settle=settle, resubmit_uncertain=resubmit_uncertain, log=log)
    else:
        task = None
    at: float = before["at"] if task is not None else _now()
    if task is None:
        try:
            task = submit(lambda token: state.set(KEY, {"token": dict(token), "at": _now()}))
        except tb.TaskbridgeError as error:
            if error.not_accepted:
                state.delete(KEY)
            raise
        log.info("submitted %s", task.ref)
    state.set(KEY, {"ref": str(task.ref), "at": at})
    return task, at


def mark_done(state: StateStore, ref: str) -> None:
    """Note that the run has used its task, so that clearing it in Airflow submits again."""
    state.set(KEY, {"ref": ref, "done": True})


def _continued(client: tb.Client, ref: str, at: float, log: Any) -> tb.Task | None:
    """Return the task of an earlier try; None if it failed, or the vendor no longer has it."""
    try:
        task = client.get(ref, submitted_at=datetime.fromtimestamp(at, UTC))  # it may not be shown yet
    except (tb.TaskNotFound, tb.InvalidTaskId, tb.UnsupportedFeature) as error:  # the last if the vendor keeps no tasks
        log.warning("the task of an earlier try is gone, so the document is submitted again: %s", error)
        return None
    if task.status == tb.TaskStatus.FAILED:
        log.warning("the task of an earlier try failed, so the document is submitted again: %s", task)
        return None
    log.info("continuing with the task of an earlier try: %s", task)
    return task


def _recovered(
    client: tb.Client,
    before: Mapping[str, Any],
    document: Any,
    *,
    settle: float,
    resubmit_uncertain: bool,
    log: Any,
) -> tb.Task | None:
    """Return the task of a submission whose response no try received; None if the vendor did not accept it."""
    lost = tb.SubmitUncertain("an earlier try ended while it submitted", recovery_token=before["token"])
    try:
        task = client.recover(lost, document)
    except tb.UnsupportedFeature:
        if resubmit_uncertain:
            log.warning("an earlier try may have submitted the document, and the vendor cannot be searched; again")
            return None
        raise AirflowFailException(
            "an earlier try may have submitted the document, and the vendor cannot be searched for it: look in the "
            f"vendor's own account, then delete {KEY!r} from the task state store of this task to submit again, or set "
            "resubmit_uncertain=True if paying twice is acceptable"
        ) from None
    if task is not None:
        log.info("an earlier try submitted the document: %s", task)
        return task
    age = _now() - before["at"]
    if age < settle:
        raise tb.SubmitUncertain(
            f"an earlier try may have submitted the document {age:.0f} s ago, and the vendor does not show it yet; "
            f"after {settle:.0f} s it counts as not accepted, so retry_delay should be longer than that",
            recovery_token=before["token"],
        )
    log.warning("an earlier try was interrupted, and the vendor has no submission of it; submitting again")
    return None


def _now() -> float:
    return datetime.now(UTC).timestamp()
