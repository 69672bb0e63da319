"""A store and Celery (extra ``celery``): events become Celery tasks, and Celery tasks store submissions.

    relay(store, app, "documents.ended").run()  # in a process of its own, or use `taskbridge serve --deliver`

    @app.task(bind=True, acks_late=True)
    def convert(self, path):
        submit(store, "invoices", "convert", path, to="pdf")

The worker does not wait for the vendor: ``convert`` ends at once, and ``documents.ended`` begins when the document is
done.
"""

from __future__ import annotations

import os
from typing import Any, Unpack

from taskbridge._config.registry import require_extra
from taskbridge.errors import ConfigError
from taskbridge.store import DeliveryPolicy, Relay, Store, StoredSubmission
from taskbridge.store.intents import SubmissionOptions
from taskbridge.store.targets import CeleryTarget, task_id_of

try:
    from celery import Celery, current_task
except ModuleNotFoundError as error:
    if error.name != "celery":
        raise
    raise require_extra("celery", "celery", "taskbridge.celery") from None

__all__ = ["relay", "submit", "task_id_of"]


def relay(
    store: Store,
    app: Celery,
    task_name: str,
    *,
    consumer: str = "celery",
    policy: DeliveryPolicy | None = None,
    **options: Any,
) -> Relay:
    """Return a relay that sends each event of a store to a Celery task; `Relay.run` starts it.

    The Celery task gets one argument, a dictionary that `Event.from_dict` reads. Its id is derived from the event's
    key, so it is the same if the event is sent again, as after a crash of the relay. Act once per key.

    Args:
        store: The store.
        app: The Celery application.
        task_name: Name of the Celery task.
        consumer: Name under which the store keeps what has been sent.
        policy: How often to try again while the broker cannot be reached; None for the relay's usual policy.
        options: Further arguments of ``send_task``, such as ``queue``.
    """
    return Relay(store, consumer, CeleryTarget(app, task_name, options), policy=policy)


def submit(
    store: Store,
    connection: str,
    operation: str | None = None,
    input: str | os.PathLike[str] | None = None,  # noqa: A002  # as in Client.submit
    *,
    key: str | None = None,
    **given: Unpack[SubmissionOptions],
) -> StoredSubmission:
    """Store a submission from within a Celery task; safe under ``acks_late``, retries and repeated messages.

    The submission is stored under the id of the Celery task, which stays the same when Celery runs the task again. So
    it is stored once, however often that happens. A Celery task that submits several documents gives each a key.

    Args:
        store: The store.
        connection: Name of a configured connection.
        operation: As for `Transaction.submit`, as the following.
        input: Path of a file or a URL, the same each time the Celery task runs.
        key: Your own id of the submission; None for the id of the running Celery task.
        given: As for `Transaction.submit`.

    Raises:
        ConfigError: The key was used for another submission, or no key was given outside of a Celery task.
        InvalidInput: An argument cannot be stored.
        StoreUnavailable: It was not stored; let Celery retry.
    """
    if key is None:
        key = current_task.request.id if current_task else None  # type: ignore[truthy-bool]  # a proxy of None outside
        if key is None:
            raise ConfigError("submit has no key: call it within a Celery task, or pass key=")
    return store.submit(connection, operation, input, key=key, **given)
