"""Whether a vendor takes a connection's credential, by the cheapest call that needs it; a lifted flow, without I/O.

That is the newest page of the vendor's list where it has one, else the credential itself where the vendor gives it out.
What comes back tells more on the way: the vendor's clock, and words that our tables do not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.attempts import Lifted
from taskbridge.channel import Channel
from taskbridge.flows import tapped
from taskbridge.lifecycle import act
from taskbridge.policy import read_http_date
from taskbridge.submission import Page, Query

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge.http import Response
    from taskbridge.model import Task

__all__ = ["Checkup", "check"]


@dataclass(frozen=True, slots=True)
class Checkup:
    """What came of trying a connection.

    Attributes:
        how: What was asked, in words; None where the vendor has no call that needs no task.
        tasks: Tasks that the vendor told of.
        unknown_words: Status words among them that our tables do not know.
        skew: Seconds by which this computer's clock is ahead of the vendor's, within one or two; None where it tells
            no time.
    """

    how: str | None
    tasks: int = 0
    unknown_words: tuple[str, ...] = ()
    skew: float | None = None


def check(channel: Channel) -> Lifted[Checkup]:
    """Try a connection.

    Raises:
        AuthenticationError: The vendor refuses the credential.
        TaskbridgeError: It refuses the call, or was not reached or understood.
    """
    answers: list[Response] = []
    provider = channel.provider
    if provider.capabilities.listing is not None:
        page: Page = yield from act(channel, lambda: tapped(provider.list_page(Query(), None), answers.append))
        return Checkup("the newest tasks were listed", len(page.tasks), _unknown(page.tasks), _skew(answers))
    yield from act(channel, lambda: tapped(provider.authorise(), answers.append))
    return Checkup("a token was given out" if answers else None, skew=_skew(answers))


def _unknown(tasks: Iterable[Task]) -> tuple[str, ...]:
    return tuple(sorted({task.native_status or "none" for task in tasks if not task.recognised}))


def _skew(answers: Iterable[Response]) -> float | None:
    for answer in answers:
        told = read_http_date(answer.headers.get("date", ""))
        if told is not None:
            return (answer.received_at - told).total_seconds()
    return None
