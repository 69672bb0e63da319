"""``docs/reliability.md``, made from the catalogue: what look-ups, waits and downloads do, fault by fault.

``python tests/faults/write_page.py`` writes it; a test compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from .catalogue import ROWS
from .elsewhere import ELSEWHERE, PROMISES
from .rows import Row
from .submitting import words
from .vendors import VENDORS

__all__ = ["page"]

START: Final = """\
# When something breaks

What one look-up does for each fault between us and a vendor, and what becomes of the task. Every row is played by a
server on raw sockets to the synchronous and to the asynchronous client, for each of the vendors, to submits, and to
cancels; `tests/faults` has the server, the rows, and tests that compare.
Faults that take more than a row name the tests that inject them. The numbers are those of the project's catalogue of
faults (F) and promises (P). This page is made from the rows (`python tests/faults/write_page.py`).

* **Error** is what `client.get` raises, in the end; *none* means that it returns the task.
* **Asked again** is how often the request is repeated inside one look-up. *yes*: up to `retry.attempts` requests in
  all, three by default, the first included. *while time remains*: until `request_timeout`.
* **A wait** either goes on to its own deadline and finds out later, or ends with the error. An error of a look-up never
  changes the state of the task.
* **A submit** that meets the same fault. *The same*: the same error, and it is asked again as a look-up is, because
  nothing left this machine or the vendor refused before any work. `SubmitUncertain`: it left, and is never sent again
  blindly; see [submitting](submitting.md). A cancel that may have left is never sent twice either; the error is the
  look-up's.
* **The task** is *kept*: the last snapshot is still the truth. *As answered*: the answer counts.

## Look-ups
"""

DIFFERENCES: Final = """\
## The two clients

`taskbridge` sends by requests and urllib3, `taskbridge.aio` by aiohttp. Both have the same outcome for every row above,
though the libraries below do not: what they disagree about is decided before either is believed.

* http.client takes an answer that ends inside its headers for a whole one, a `Content-Length` that is no number for
  none, and skips the headers behind one that it cannot read. aiohttp refuses all three, in the guise of a status 400
  that the vendor never sent. Here they are `TruncatedResponse` and `MalformedResponse`.
* aiohttp sends GET, PUT and DELETE once more, without a word, when a connection breaks before the answer's head. Here
  it does not: requests are repeated in one place only, and counted.
* aiohttp waits for ever when a chunk of a body cannot be read. Here the loss of the connection is noticed.
* Both take at most 99 header fields of 64 KiB each, one `Content-Length`, and no `Content-Encoding` but gzip.

What remains different:

* The synchronous client may be used from many threads, and after a fork: the child opens connections of its own. A
  client of `taskbridge.aio` belongs to one event loop, and says so when it is used from another.
* The synchronous client opens as many connections as threads ask at the same time and keeps up to 32 for each host. The
  asynchronous one opens up to 100; further calls wait for one of them, within their own deadline.
* The system's resolver has no time limit. When it hangs, the synchronous client leaves the thread that asked it behind,
  which ends when the resolver does.
"""

FUZZED: Final = """\
## Fuzzing

Every reader of what strangers send is fuzzed with coverage guidance (`tests/fuzz`): answers of each vendor, JSON, heads
and packed bodies, ids, times and addresses, configurations, webhooks. The tests run some thousand inputs; `make fuzz`
gives each target five minutes, `make fuzz SECONDS=3600` an hour. What breaks a promise is kept in `.fuzz/crash-…` and
played again by `python tests/fuzz TARGET .fuzz/crash-…`. The long run of November 2026 had 9.1 million inputs in 32
minutes; what it found is mended: an address that two readers read differently, and numbers that became infinite.
"""

PROMISED: Final = """\
## What is promised

Each with the tests that prove it. Figures are printed by `pytest -s tests/faults/test_outage.py` and
`pytest -s tests/faults/test_sizes.py`.
"""


def page() -> str:
    """The page."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield START
    yield "| | Fault | Error | Asked again | A wait | The task | A submit |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for (number, error, retried, wait, state, submit), rows in groupby(sorted(ROWS, key=_place), _outcome):
        faults = "; ".join(_plain(row.fault) + _where(row) for row in rows)
        yield f"| {number} | {faults} | {error} | {retried} | {wait} | {state} | {submit} |"
    yield ""
    for section, apart in ELSEWHERE.items():
        yield f"## {section}"
        yield ""
        yield "| | Fault | Outcome | Asked again | The task | Tests |"
        yield "| --- | --- | --- | --- | --- | --- |"
        for each in apart:
            cells = (each.id, each.fault, each.outcome, each.retried, each.state, _tests(each.tests))
            yield f"| {' | '.join(cells)} |"
        yield ""
    yield DIFFERENCES
    yield FUZZED
    yield PROMISED
    yield "| | Promise | Tests |"
    yield "| --- | --- | --- |"
    for promise in PROMISES:
        yield f"| {promise.id} | {promise.words} | {_tests(promise.tests)} |"
    yield ""


def _tests(named: tuple[str, ...]) -> str:
    return "; ".join(f"`{path}`: {_words(test)}" for path, _, test in (each.partition("::") for each in named)) or "—"


def _words(test: str) -> str:
    return test.removeprefix("test_").replace("_", " ")


def _place(row: Row) -> tuple[int, int]:
    return int(row.id[1:]), ROWS.index(row)


def _outcome(row: Row) -> tuple[str, str, str, str, str, str]:
    error = "none" if row.error is None else f"`{row.error.__name__}`"
    for vendor, other in row.other.items():
        error += f"; `{other.__name__}` at {vendor}"
    wait = "—" if row.error is None else "ends" if row.ends else "goes on"
    return row.id, error, row.retried if row.error is not None else "—", wait, row.state, words(row)


def _where(row: Row) -> str:
    return f" ({', '.join(v for v in VENDORS if v in row.vendors)})" if row.vendors else ""


def _plain(text: str) -> str:
    if text[:3].isdigit() and not text[3:].startswith(" headers"):
        text = f"HTTP {text}"
    return text.replace("|", "\\|").replace("_", "\\_").replace("*", "\\*").replace("<", "\\<")
