"""What an emulated vendor is made of.

An emulator is written from the vendor's documents, never from our translator: it imports nothing of the provider in
whose folder it lies, and shares no table with it. The shell (`taskbridge.emulator.shell`) gives it a clock, an address
and a seeded source of ids; the emulator gives back routes, settings that connect to it, and sample tasks.

Tasks move by themselves: a `Plan` says how long a task queues and works and how it ends, and the emulator derives the
native state from the vendor's clock at the moment of asking. Only where somebody wants to be told (webhooks) is it
asked every few milliseconds whether there is something to tell.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from starlette.routing import BaseRoute

    from taskbridge.emulator.clock import VendorClock
    from taskbridge.emulator.deliveries import Courier

__all__ = ["Host", "Outcome", "Plan", "VendorEmulator"]

Outcome = Literal["completed", "failed", "cancelled", "partial", "stuck"]
"""How a planned task ends; `stuck` never does. A vendor that has no such end does the nearest thing that it has."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The life of one task, in vendor seconds.

    Attributes:
        queued: Seconds before work starts.
        working: Seconds of work after that.
        review: Seconds that a person's review takes after the work, where the vendor has reviews.
        outcome: How it ends.
    """

    queued: float = 2.0
    working: float = 4.0
    review: float = 0.0
    outcome: Outcome = "completed"

    @property
    def duration(self) -> float:
        """Seconds from creation to the end (infinite for a stuck task)."""
        return float("inf") if self.outcome == "stuck" else self.queued + self.working + self.review

    @classmethod
    def for_name(cls, name: str, default: Plan | None = None) -> Plan:
        """The plan that a document's name asks for.

        Words in the name, separated by anything but letters and digits, change the plan: ``fail``, ``cancel``,
        ``partial``, ``stuck``, ``review`` (a long human review), ``slow`` (ten times), ``fast`` (a tenth), ``instant``.

        Args:
            name: A file name, URL, or any text that came with the document.
            default: The plan without such words.
        """
        plan = default or cls()
        for word in re.findall(r"[a-z0-9]+", name.lower()):
            change = _WORDS.get(word)
            if change is not None:
                plan = change.apply(plan)
        return plan


@dataclass(frozen=True, slots=True)
class _Change:
    outcome: Outcome | None = None
    factor: float = 1.0
    review: float | None = None

    def apply(self, plan: Plan) -> Plan:
        return replace(
            plan,
            outcome=self.outcome or plan.outcome,
            queued=plan.queued * self.factor,
            working=plan.working * self.factor,
            review=plan.review if self.review is None else self.review,
        )


_WORDS: Final[Mapping[str, _Change]] = {
    "fail": _Change(outcome="failed"),
    "cancel": _Change(outcome="cancelled"),
    "partial": _Change(outcome="partial"),
    "stuck": _Change(outcome="stuck"),
    "review": _Change(review=6.0),
    "slow": _Change(factor=10.0),
    "fast": _Change(factor=0.1),
    "instant": _Change(factor=0.0),
}


@dataclass(frozen=True, slots=True)
class Host:
    """What the shell lends to an emulator.

    Attributes:
        base_url: ``http://127.0.0.1:PORT`` without a trailing slash.
        clock: The vendor's time.
        random: Seeded source of ids; use nothing else, so that a run can be repeated.
        default_plan: The plan of tasks whose document names ask for nothing.
        courier: Delivers webhooks.
        next_plans: Plans for the next created tasks, first in first out; `take_plan` reads them.
    """

    base_url: str
    clock: VendorClock
    random: Random
    courier: Courier
    default_plan: Plan = field(default_factory=Plan)
    next_plans: list[Plan] = field(default_factory=list["Plan"])

    def take_plan(self, name: str = "") -> Plan:
        """The plan for a task created now: a queued one, else what its document's ``name`` asks for."""
        return self.next_plans.pop(0) if self.next_plans else Plan.for_name(name, self.default_plan)


class VendorEmulator(ABC):
    """One emulated vendor.

    Args:
        host: What the shell lends.
    """

    name: ClassVar[str]
    """The provider's entry-point name, also the entry-point name of the emulator."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def tick(self) -> None:  # noqa: B027  # a vendor that tells nothing has nothing to do
        """Tell what is due to be told, through the host's courier; called often once the courier is needed."""

    def subscribe(self, url: str) -> str:
        """Tell an address of everything from now on, as the vendor's dashboard would be asked to.

        Args:
            url: Where events are sent; the emulator may add to it what proves the sender.

        Returns:
            The secret that proves the sender, for `webhook_secrets`.

        Raises:
            NotImplementedError: This vendor tells nothing unasked.
        """
        raise NotImplementedError(f"{self.name} tells nothing unasked")

    @abstractmethod
    def mounts(self) -> Mapping[str, Sequence[BaseRoute]]:
        """Routes by the path prefix they hang under: ``{"acme": […], "acme-sync": […]}``, each below the base URL."""

    @abstractmethod
    def settings(self) -> Mapping[str, str]:
        """Keywords with which ``taskbridge.connect(name, **settings)`` reaches this emulator."""

    @abstractmethod
    def samples(self) -> Mapping[str, str]:
        """Shared ids of tasks that exist at once, by label: ``{"completed": id, "failed": id, …}``."""
