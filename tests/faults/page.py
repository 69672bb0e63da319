"""Generates ``docs/reliability.md`` from the catalogue: what each operation does, fault by fault.

``python tests/faults/write_page.py`` writes the page; a test compares it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from .catalogue import ROWS
from .other_faults import OTHER_FAULTS, PROMISES
from .rows import Row
from .submitting import describe
from .vendors import VENDORS

START: Final = """\
# When something breaks

What `client.get` does for each fault between us and a vendor, and what happens to the task. A server on raw sockets
injects every row into the synchronous and the asynchronous client, for each vendor, and also into submissions and
cancels. `tests/faults` has the server, the rows and the tests. Faults that need more than a row name the tests that
inject them. The numbers are those of the project's catalogue of faults (F) and promises (P). This page is generated
from the rows (`python tests/faults/write_page.py`).

* **Error** is what `client.get` raises in the end; *none* means that it returns the task.
* **Retried** is how often the request is repeated inside one `get`. *yes*: up to `retry.attempts` requests in all, by
  default three, the first included. *while time remains*: until `request_timeout`.
* **A wait** either *continues* until its own deadline and polls again, or *ends* with the error. An error of a poll
  never changes the state of the task.
* **A submission** that meets the same fault. *The same*: the same error, and it is retried as a `get` is, because
  nothing was sent or the vendor rejected it before starting any work. `SubmitUncertain`: it was sent, and is never
  sent again blindly; see [submitting](submitting.md). A cancel that may have been sent is never sent twice either;
  its error is that of `get`.
* **The task** is *kept*: the last snapshot still holds. *As answered*: the response counts.

## Status requests
"""

DIFFERENCES: Final = """\
## The two clients

Requests are sent by libcurl, or by requests and urllib3; the setting `transport` chooses. Each client uses either, and
every row above has the same outcome in all four combinations. The libraries themselves differ; these differences are
resolved before a result is used:

* http.client accepts a response that ends inside its headers as complete, treats an invalid `Content-Length` as none,
  and skips the headers after one that it cannot parse. libcurl accepts a response that ends after a header line. Here
  they are `TruncatedResponse` and `MalformedResponse`.
* libcurl silently sends a request again, several times and whatever its method, if the kept connections that it picks
  have died. Here a request that is not idempotent, or has a body, gets a new connection, and any other is sent once
  more at most.
* libcurl reads `HTTP/1.1 20000` as status 200 and sends a line break inside a header value. Here neither passes.
* Both accept at most 99 header fields of 64 KiB each, one `Content-Length`, and no `Content-Encoding` but gzip.

What remains different:

* The synchronous client can be used from many threads and after a fork: the child opens its own connections. The
  waits for many tasks of one client of `taskbridge.aio` belong to one event loop; a child of a fork has its own.
* With libcurl, a connection opens up to `max_in_flight` network connections, and further calls wait for one of them,
  within their own deadline. With requests, each concurrent thread opens one, and up to `max_in_flight` are kept for
  each host.
* A connection that ends behind a chunk longer than its stated size is `MalformedResponse` with libcurl and
  `TruncatedResponse` with requests.
* The system's resolver has no time limit. If it hangs, the thread that resolves the name is abandoned; it ends when the
  resolver returns.
"""

FUZZED: Final = """\
## Fuzzing

Every parser of untrusted input is fuzzed with coverage guidance (`tests/fuzz`): each vendor's responses, JSON,
headers and compressed bodies, ids, times and URLs, configurations, webhooks. The tests run some thousand inputs;
`make fuzz` runs each target for five minutes, `make fuzz SECONDS=3600` for an hour. An input that breaks a promise is
kept in `.fuzz/crash-…`; `python tests/fuzz TARGET .fuzz/crash-…` runs it again. The long run of November 2026 had 9.1
million inputs in 32 minutes. What it found is fixed: a URL that two parsers read differently, and numbers that became
infinite.
"""

PROMISED: Final = """\
## Promises

Each with the tests that prove it. `pytest -s tests/faults/test_outage.py` and `pytest -s tests/faults/test_sizes.py`
print the figures.
"""


def page() -> str:
    """Return the page."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield START
    yield "| | Fault | Error | Retried | A wait | The task | A submission |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for (number, error, retried, wait, state, submit), rows in groupby(sorted(ROWS, key=_place), _outcome):
        faults = "; ".join(_escaped(row.fault) + _where(row) for row in rows)
        yield f"| {number} | {faults} | {error} | {retried} | {wait} | {state} | {submit} |"
    yield ""
    for section, section_faults in OTHER_FAULTS.items():
        yield f"## {section}"
        yield ""
        yield "| | Fault | Outcome | Retried | The task | Tests |"
        yield "| --- | --- | --- | --- | --- | --- |"
        for each in section_faults:
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
        error += f"; `{other.__name__}` for {vendor}"
    wait = "—" if row.error is None else "ends" if row.ends_wait else "continues"
    return row.id, error, row.retried if row.error is not None else "—", wait, row.state, describe(row)


def _where(row: Row) -> str:
    return f" ({', '.join(v for v in VENDORS if v in row.vendors)})" if row.vendors else ""


def _escaped(text: str) -> str:
    if text[:3].isdigit() and not text[3:].startswith(" headers"):
        text = f"HTTP {text}"
    return text.replace("|", "\\|").replace("_", "\\_").replace("*", "\\*").replace("<", "\\<")
