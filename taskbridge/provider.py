"""What the author of a provider needs, and nothing else.

A provider translates: each of its operations is a flow (`taskbridge.http`) that builds requests from a shared id and a
`Task` from what comes back. It imports no HTTP library and reads no clock. Retries, credentials' life, deadlines, pace,
the comparison of the id in the answer with the id asked for, and threads or asyncio are the core's business.

The reading order of a provider file is the same for all: docstring with the vendor's document, tables, settings, class
with name and capabilities, requests in the order in which a task lives, translation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from taskbridge.capabilities import PLAIN_ID, Capabilities, Credential, Delivery, Downloads, IdKind, Webhooks
from taskbridge.dialogue import CodeTable, Dialogue, ProviderSettings, S, StatusTable, Verdict
from taskbridge.errors import MalformedResponse, UnsupportedFeature, plain
from taskbridge.http import Flow, Request
from taskbridge.model import Reason, Task, TaskFile, TaskResult, TaskStatus, WebhookEvent
from taskbridge.reading import NO_TIME, Payload, State, StateTable, path_id, read_state, read_time
from taskbridge.results import Made, as_json, as_text, written
from taskbridge.submission import Page, Query, Submission

__all__ = [
    "NO_TIME",
    "PLAIN_ID",
    "Capabilities",
    "CodeTable",
    "Credential",
    "Delivery",
    "Downloads",
    "IdKind",
    "Made",
    "Payload",
    "Provider",
    "ProviderSettings",
    "State",
    "StateTable",
    "StatusTable",
    "Verdict",
    "Webhooks",
    "as_json",
    "as_text",
    "no_requests",
    "path_id",
    "read_state",
    "read_time",
    "written",
]


class Provider(Dialogue[S], ABC):
    """One vendor's translator.

    Args:
        settings: The connection's own settings, checked.
        connection: The connection's name.
    """

    account_refusals: ClassVar[frozenset[str | int]] = frozenset()
    """Vendor codes or HTTP statuses of a refusal that is about the account, not the task: they pause the connection."""
    doubtful_statuses: ClassVar[frozenset[int]] = frozenset()
    """HTTP statuses from 500 on that the vendor has given to orders which it took all the same: such an order is
    `SubmitUncertain`. Those of gateways (502, 504, 520 to 524) leave every vendor's orders in doubt."""
    max_body: ClassVar[int] = 1 << 20
    """Bytes of a decoded answer that are read at most."""
    max_delivery: ClassVar[int] = 1 << 20
    """Bytes of a webhook delivery that are looked at; a larger one is refused."""
    wait_hints: ClassVar[Mapping[TaskStatus | Reason, str]] = MappingProxyType({})
    """What a user should know when a wait ran out of time, by the reason or status that the task was last seen in."""

    # Requests, in the order in which a task lives.

    def authorise(self) -> Flow[Credential]:
        """The credential that the requests carry; the core keeps it, and renews it before it expires."""
        return no_requests(Credential({}))

    @abstractmethod
    def get(self, task_id: str) -> Flow[Task]:
        """Look a task up once.

        Args:
            task_id: A shared id that `split_id` accepts.
        """

    def hold(self, task_id: str) -> Flow[Task] | None:
        """Look a task up on a line that the vendor holds until the end; None where it has none for this id."""
        del task_id
        return None

    def result(self, task: Task) -> Flow[TaskResult]:
        """What a completed task made; the default is what the status answer itself carried.

        Args:
            task: A completed task.
        """
        if task.result is None:
            raise MalformedResponse("the task is completed, but the vendor's answer has no result", raw=task.raw)
        return (yield from no_requests(task.result))

    def written(self, task: Task, result: TaskResult) -> tuple[TaskFile | Made, ...]:
        """The files that a result makes: those that the vendor keeps, else its text and its data.

        Args:
            task: A completed task.
            result: What it made.
        """
        return result.files or written(task, result)

    def source(self, file: TaskFile) -> Request:
        """The request for the bytes of a file; the default asks its link, without a credential.

        The core sends it, follows redirects, and streams the answer to the disk.

        Args:
            file: A file that a task made.
        """
        if not file.url:
            raise MalformedResponse(f"{self.title} gives no link to the file {plain(file.name or '', 80)!r}")
        return Request("GET", file.url, headers={"Accept": "*/*"}, authorised=False, expect="bytes", foreign=True)

    # Requests that change something. What `capabilities` does not claim is refused before it comes here.

    def get_with(self, task_id: str, options: Mapping[str, Any]) -> Flow[Task]:
        """Look a task up once, with the vendor's own query options.

        Args:
            task_id: A shared id that `split_id` accepts.
            options: By name; `Capabilities.look_options` has all their names.
        """
        del task_id, options
        raise self.unsupported("look a task up with options")

    def submit(self, order: Submission) -> Flow[Task]:
        """Hand an order to the vendor.

        The one request after which the vendor may have taken it is marked ``commits``; each request after the first
        tells in its ``clue`` what was made before it.

        Args:
            order: What to do; its documents are data, and may be sent as often as needed.
        """
        del order
        raise self.unsupported("submit")

    def sweep(self, prefixes: frozenset[str], now: datetime, age: float) -> tuple[Query, ...]:
        """What to ask the list for, so that it shows the tasks that go on; those it does not show are looked at.

        Args:
            prefixes: Kinds of ids that are waited for.
            now: Aware UTC time.
            age: Seconds since the oldest of them was created, as far as is known.
        """
        del prefixes, now, age
        return ()

    def list_page(self, query: Query, cursor: str | None) -> Flow[Page]:
        """Ask for one page of the vendor's list; links in the answer are read, never followed.

        Args:
            query: What is asked for; of its status only what `Listing.statuses` claims has to be heeded.
            cursor: `Page.next_cursor` of the page before; None for the first.
        """
        del query, cursor
        raise self.unsupported("list")

    def cancel(self, task_id: str) -> Flow[Task]:
        """Stop a task; one that has ended is answered as it is.

        Args:
            task_id: A shared id that `split_id` accepts.
        """
        del task_id
        raise self.unsupported("cancel")

    def retry(self, task_id: str) -> Flow[Task]:
        """Do a task once more, as a new task whose `retry_of` is this one.

        Args:
            task_id: A shared id that `split_id` accepts.
        """
        del task_id
        raise self.unsupported("retry")

    def delete(self, task_id: str) -> Flow[None]:
        """Remove a task and what it made.

        Args:
            task_id: A shared id that `split_id` accepts.
        """
        del task_id
        raise self.unsupported("delete")

    def restart(self, task_id: str) -> Flow[Task]:
        """Do a task anew under its own id; what it was is lost.

        Args:
            task_id: A shared id that `split_id` accepts.
        """
        del task_id
        raise self.unsupported("restart")

    def recover(self, clue: Mapping[str, Any]) -> Flow[Task | None]:
        """Look for an order of unknown fate; None where the vendor does not have it.

        Args:
            clue: ``reference``, ``operation`` (the vendor's word) and ``time`` (ISO 8601) of the order, and what its
                requests told in their ``clue``.
        """
        del clue
        raise self.unsupported("recover")

    def finish(self, task: Task, order: Submission) -> Flow[Task]:
        """Send what a recovered task still waits for; the default sends nothing.

        Args:
            task: What `recover` found; it has not ended.
            order: The documents of the order, in their places.
        """
        del order
        return no_requests(task)

    # What the vendor tells unasked.

    def parse_webhook(self, delivery: Delivery) -> WebhookEvent:
        """Read a webhook delivery; no I/O.

        The delivery hands its body out only to who names what proves the sender (``delivery.by_svix()`` and its
        like); what cannot be proved or read is refused for you.

        Args:
            delivery: What came in.
        """
        del delivery
        raise UnsupportedFeature(
            f"{self.title} sends no webhooks; wait, as_completed and watch ask it instead", provider=self.name
        )


T = TypeVar("T")


def no_requests(value: T) -> Flow[T]:
    """A flow that needs no request."""
    return value
    yield  # makes it a generator
