"""A vendor's account with ten thousands of tasks, which it shows and lists quickly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from benchmarks.vendor import PER_PAGE, document, task_id

_MARK: Final = "@@@@"


class AccountVendor:
    """The vendor's responses for the tasks of one account.

    Args:
        durations: Seconds, of tasks that begin together.
        epoch: Unix time of their beginning.
    """

    def __init__(self, durations: np.ndarray[Any, Any], epoch: float) -> None:
        self.ids = [task_id("many", number, duration) for number, duration in enumerate(durations)]
        self._ends = durations + epoch
        self._epoch = epoch
        self._numbers = {name: number for number, name in enumerate(self.ids)}
        self._running = _template("processing", epoch, None)
        self._finished = _template("finished", epoch, epoch)

    def show(self, name: str, now: float) -> str:
        """Return the body of a status response."""
        return f'{{"data": {self._row(self._numbers[name], now)}}}'

    def page(self, query: Mapping[str, str], now: float) -> str:
        """Return a page of the list, newest first."""
        wanted, number = query.get("filter[status]"), int(query.get("page", "1"))
        size = min(int(query.get("per_page", PER_PAGE)), PER_PAGE)
        chosen = np.arange(len(self.ids))[::-1]
        if wanted is not None:
            is_over = self._ends[::-1] <= now
            chosen = chosen[is_over if wanted == "finished" else ~is_over if wanted == "processing" else []]
        pages = max(1, -(-len(chosen) // size))
        rows = [self._row(int(each), now) for each in chosen[(number - 1) * size : number * size]]
        base = "https://api.cloudconvert.com/v2/tasks"
        links = {
            "first": f"{base}?page=1",
            "last": f"{base}?page={pages}",
            "prev": f"{base}?page={number - 1}" if number > 1 else None,
            "next": f"{base}?page={number + 1}" if number < pages else None,
        }
        meta = {"current_page": number, "last_page": pages, "path": base, "per_page": size, "total": len(chosen)}
        return f'{{"data": [{", ".join(rows)}], "links": {json.dumps(links)}, "meta": {json.dumps(meta)}}}'

    def _row(self, number: int, now: float) -> str:
        end = float(self._ends[number])
        if end > now:
            return self._running.replace(_MARK, self.ids[number])
        ended = datetime.fromtimestamp(end, UTC).isoformat(timespec="seconds")
        return self._finished.replace(_MARK, self.ids[number]).replace("ENDED", ended)


def _template(status: str, epoch: float, ended: float | None) -> str:
    data = document(_MARK, status, epoch, ended)
    if ended is not None:
        data["ended_at"] = "ENDED"
    return json.dumps(data)
