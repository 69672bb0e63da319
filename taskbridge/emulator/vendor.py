"""The base class of vendor emulators, and what the shell gives them.

Write an emulator from the vendor's documents, never from the provider: it imports nothing from the provider in the same
folder and shares no table with it. The shell (`taskbridge.emulator.shell`) supplies a clock, an address and a seeded
source of ids; the emulator supplies routes, the settings that connect to it, and sample tasks.

Tasks advance by themselves: a `Plan` says how long a task queues and runs and how it ends, and the emulator derives the
native state from the vendor's clock when a request comes in. Only while webhooks are enabled does the shell call the
emulator every few milliseconds, so that it can send those that are due.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from random import Random

    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from taskbridge.emulator.clock import VendorClock
    from taskbridge.emulator.webhooks import WebhookSender

__all__ = ["Host", "Plan", "PlannedOutcome", "VendorEmulator"]

PlannedOutcome = Literal["completed", "failed", "cancelled", "partial", "stuck"]
"""How a planned task ends; `stuck` never does. An emulator without such an end uses the closest one that it has."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long one task takes and how it ends, in vendor seconds.

    Attributes:
        queued: Seconds before work starts.
        working: Seconds of work after that.
        review: Seconds of human review after the work, where the vendor has reviews.
        outcome: How it ends.
    """

    queued: float = 2.0
    working: float = 4.0
    review: float = 0.0
    outcome: PlannedOutcome = "completed"

    @property
    def duration(self) -> float:
        """Seconds from submission to the end (infinite for a stuck task)."""
        return float("inf") if self.outcome == "stuck" else self.queued + self.working + self.review

    @classmethod
    def for_name(cls, name: str, default: Plan | None = None) -> Plan:
        """Return the plan for a document of this name.

        Words in the name, separated by anything but letters and digits, change the plan: ``fail``, ``cancel``,
        ``partial``, ``stuck``, ``review`` (a long human review), ``slow`` (ten times), ``fast`` (a tenth), ``instant``.

        Args:
            name: A file name, URL, or any text that came with the document.
            default: The plan without such words.
        """
        plan = default or cls()
        for word in re.findall(r"[a-z0-9]+", name.lower()):
            if word in _OUTCOMES:
                plan = replace(plan, outcome=_OUTCOMES[word])
            elif word in _FACTORS:
                plan = replace(plan, queued=plan.queued * _FACTORS[word], working=plan.working * _FACTORS[word])
            elif word == "review":
                plan = replace(plan, review=_REVIEW)
        return plan


_OUTCOMES: Final[Mapping[str, PlannedOutcome]] = {
    "fail": "failed",
    "cancel": "cancelled",
    "partial": "partial",
    "stuck": "stuck",
}
_FACTORS: Final[Mapping[str, float]] = {"slow": 10.0, "fast": 0.1, "instant": 0.0}
_REVIEW: Final = 6.0  # vendor seconds


@dataclass(frozen=True, slots=True)
class Host:
    """What the shell gives an emulator.

    Attributes:
        base_url: ``http://127.0.0.1:PORT`` without a trailing slash.
        storage_url: The same server at another port, and so another origin: a client that follows a redirect to it does
            not send its credential along.
        clock: The vendor's time.
        random: Seeded source of ids; use no other, so that a run can be repeated.
        webhooks: Sends webhooks.
        default_plan: The plan of tasks whose document names contain no words of `Plan.for_name`.
        next_plans: Plans for the next tasks, first in first out; `take_plan` reads them.
    """

    base_url: str
    storage_url: str
    clock: VendorClock
    random: Random
    webhooks: WebhookSender
    default_plan: Plan = field(default_factory=Plan)
    next_plans: list[Plan] = field(default_factory=list["Plan"])

    def take_plan(self, name: str = "") -> Plan:
        """Return the plan for a task created now: the next of `next_plans`, else `Plan.for_name`."""
        return self.next_plans.pop(0) if self.next_plans else Plan.for_name(name, self.default_plan)


class VendorEmulator(ABC):
    """One emulated vendor.

    Args:
        host: What the shell supplies.
    """

    name: ClassVar[str]
    """The provider's entry-point name, also the entry-point name of the emulator."""

    token_paths: ClassVar[tuple[str, ...]] = ()
    """Paths of calls that issue tokens, prefix included; faults are injected into them only on request."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def tick(self) -> None:  # noqa: B027  # an emulator without webhooks has nothing to do
        """Send the webhooks that are due; called every few milliseconds once ``host.webhooks.enable()`` was called."""

    def error_response(self, status: int, path: str) -> Response | None:
        """Return the vendor's own response with an error status: for injected faults, unknown paths and wrong methods.

        Args:
            status: The HTTP status.
            path: Path of the request, prefix included.

        Returns:
            The response; None if the vendor's body is unknown, which then is empty.
        """
        del status, path
        return None

    def register_webhook(self, url: str, events: Iterable[str] | None = None) -> str:
        """Send events to ``url`` from now on, as if it had been entered in the vendor's dashboard.

        Args:
            url: Where events are sent; the emulator may add a secret to it that authenticates the sender.
            events: The vendor's names of the events; None means all.

        Returns:
            The secret that authenticates the sender, for `webhook_secrets`.

        Raises:
            NotImplementedError: This vendor has no webhooks.
            ValueError: The vendor has no event of that name.
        """
        raise NotImplementedError(f"{self.name} has no webhooks")

    def webhook_secrets(self) -> Mapping[str, str]:
        """Secrets that sign webhooks without `register_webhook`, by the option with which a caller asks for them."""
        return {}

    @abstractmethod
    def mounts(self) -> Mapping[str, Sequence[BaseRoute]]:
        """Routes by path prefix: ``{"acme": […], "acme-sync": […]}``, each below the base URL."""

    @abstractmethod
    def settings(self) -> Mapping[str, str]:
        """Keywords with which ``taskbridge.connect(name, **settings)`` reaches this emulator."""

    @abstractmethod
    def samples(self) -> Mapping[str, str]:
        """Shared ids of tasks that exist from the start, by label: ``{"completed": id, "failed": id, …}``."""
