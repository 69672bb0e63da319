"""``docs/reliability.md``, made from the catalogue: what look-ups, waits and downloads do, fault by fault.

``python tests/faults/write_page.py`` writes it; a test compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Final

from .catalogue import ROWS
from .rows import Row
from .vendors import VENDORS

__all__ = ["APART", "DOWNLOADS", "UNCOVERED", "page"]

START: Final = """\
# When something breaks

What one look-up does for each fault between us and a vendor, and what becomes of the task. Every row is played by a
server on raw sockets to the synchronous and to the asynchronous client, for each of the vendors; `tests/faults` has the
server, the rows, and tests that compare. This page is made from the rows (`python tests/faults/write_page.py`).

* **Error** is what `client.get` raises, in the end; *none* means that it returns the task.
* **Asked again** is how often the request is repeated inside one look-up. *yes*: up to `retry.attempts` requests in
  all, three by default, the first included. *while time remains*: until `request_timeout`.
* **A wait** either goes on to its own deadline and finds out later, or ends with the error. An error of a look-up never
  changes the state of the task.
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

APART: Final[Mapping[str, tuple[str, str, str]]] = {
    "F7": (
        "A kept connection turns out to be closed",
        "none if a fresh connection works; asked again once, which is no attempt",
        "test_connections.py",
    ),
    "F20": (
        "All connections are in use",
        "`DeadlineExceeded`, never a hang; the synchronous client opens one more",
        "test_transports.py",
    ),
    "F57": ("A task goes backwards, progress falls", "none; the task as answered", "test_catalogue.py"),
    "F61": ("A text that cannot be an id", "`InvalidTaskId`, nothing is sent", "test_catalogue.py"),
    "F69": (
        "`.netrc`, a proxy and certificates of the environment",
        "`.netrc` is never read, `ca_bundle` stands above the environment, this machine is reached without a proxy",
        "test_connections.py",
    ),
    "F88": ("A fork after the first call", "every answer is the asker's own", "test_connections.py"),
    "F115": (
        "A call of the asynchronous client is cancelled",
        "`CancelledError`; no connection and no asyncio task is left (a submit: not covered yet)",
        "test_connections.py",
    ),
    "F116": ("One asynchronous client, two event loops", "`ConfigError`", "test_transports.py"),
}
"""Faults of look-ups that take more than a row: what happens, the outcome, where it is tested."""

DOWNLOADS: Final[tuple[tuple[str, str, str, str], ...]] = (
    (
        "F60",
        "A link, or a redirect of one, into a private network, in any spelling; a name that leads there; plain http",
        "`MalformedResponse`, nothing is fetched; `allow_private` and `allow_http` allow it",
        "no",
    ),
    (
        "",
        "A vendor's own host redirects to another",
        "followed, at most five times; the key and all header fields but `Accept` and the range stay behind",
        "—",
    ),
    (
        "F107",
        "A link answers 401, 403, 404 or 410",
        "the task is looked up once for a fresh link; then `PermissionDenied` or `TaskNotFound`, and no pause",
        "once, by the fresh link",
    ),
    ("", "A link answers 5xx", "`ServerError`; the vendor's pace is not slowed", "yes"),
    (
        "F108",
        "A file is cut anywhere, or has fewer bytes than was said",
        "`TruncatedResponse`; no file under the name",
        "yes, from where it broke off if the host takes ranges and gave a strong ETag; anew with each megabyte",
    ),
    ("", "Another part of the file than was asked for, or 416", "none; it begins anew", "yes"),
    ("", "More bytes than the vendor says", "`MalformedResponse`; no file under the name", "no"),
    ("", "A compressed body", "undone, if it is gzip; cut, it is `TruncatedResponse`", "yes"),
    ("", "More bytes than `max_bytes`", "`ResponseTooLarge`; no file under the name", "no"),
    ("", "Fewer than 20 kB a second in the mean, after `request_timeout`", "`DeadlineExceeded`", "while time remains"),
    (
        "F109",
        "The disk is full; a file of that name is there, or appears meanwhile",
        "`OSError` of the system; what was there is as it was, the temporary file is gone",
        "no",
    ),
    (
        "",
        "A name such as `../../x`, `/etc/x`, `CON`, with controls or bidirectional marks, of 10 kB, or empty",
        "none; a safe name in the folder",
        "—",
    ),
    (
        "F110",
        "A completed task without a result, a file without a link",
        "`MalformedResponse` when it is asked for, not from `get`",
        "no",
    ),
    ("", "A call is cancelled, or `on_progress` raises", "that error; the temporary file is gone", "no"),
)
"""Faults of downloads: id, what happens, the outcome, whether it is asked again."""

UNCOVERED: Final[tuple[tuple[int, int, str], ...]] = (
    (25, 25, "One key is refused for its pace, another is not: two accounts, not one look-up; not covered yet."),
    (29, 29, "A vendor comes back after an outage: many tasks over minutes, on a virtual clock; not covered yet."),
    (62, 68, "Credentials and configuration files, before anything is sent: no fault of a look-up; not covered yet."),
    (70, 70, "Settings out of range, before anything is sent: no fault of a look-up; not covered yet."),
    (71, 82, "Webhooks come to us, no look-up is made: not covered yet."),
    (83, 87, "There is no durable store yet, so nothing of it can break: not covered yet."),
    (89, 89, "Signals to the command line program: not covered yet."),
    (90, 90, "Steps of the wall clock, on a virtual clock: not covered yet."),
    (91, 91, "Plugins that are broken: no fault of a look-up; not covered yet."),
    (97, 106, "Submits and uploads: not covered yet."),
    (111, 114, "Faults of a provider's own code, not of a vendor's answer: not covered yet."),
    (117, 120, "The command line program and the emulators: not covered yet."),
)  # fmt: skip
"""Ids of the catalogue that no test here covers: first, last, why."""


def page() -> str:
    """The page."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield START
    yield "| | Fault | Error | Asked again | A wait | The task |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for (number, error, retried, wait, state), rows in groupby(sorted(ROWS, key=_place), _outcome):
        faults = "; ".join(_plain(row.fault) + _where(row) for row in rows)
        yield f"| {number} | {faults} | {error} | {retried} | {wait} | {state} |"
    yield ""
    yield "Faults that take more than one look-up:"
    yield ""
    yield "| | Fault | Outcome | Tested in |"
    yield "| --- | --- | --- | --- |"
    for number, (fault, outcome, where) in APART.items():
        yield f"| {number} | {fault} | {outcome} | `tests/faults/{where}` |"
    yield ""
    yield "## Downloads"
    yield ""
    yield "What [a download](downloading.md) does, with both clients; `tests/faults/test_downloads.py` plays each row."
    yield ""
    yield "| | Fault | Outcome | Asked again |"
    yield "| --- | --- | --- | --- |"
    for number, fault, outcome, retried in DOWNLOADS:
        yield f"| {number} | {fault} | {outcome} | {retried} |"
    yield ""
    yield DIFFERENCES
    yield "## Not on this page"
    yield ""
    yield "The catalogue of faults goes on beyond look-ups. What the tests here do not cover:"
    yield ""
    yield "| | Why |"
    yield "| --- | --- |"
    for first, last, why in UNCOVERED:
        yield f"| F{first} | {why} |" if first == last else f"| F{first} to F{last} | {why} |"
    yield ""


def _place(row: Row) -> tuple[int, int]:
    return int(row.id[1:]), ROWS.index(row)


def _outcome(row: Row) -> tuple[str, str, str, str, str]:
    error = "none" if row.error is None else f"`{row.error.__name__}`"
    for vendor, other in row.other.items():
        error += f"; `{other.__name__}` at {vendor}"
    wait = "—" if row.error is None else "ends" if row.ends else "goes on"
    return row.id, error, row.retried if row.error is not None else "—", wait, row.state


def _where(row: Row) -> str:
    return f" ({', '.join(v for v in VENDORS if v in row.vendors)})" if row.vendors else ""


def _plain(text: str) -> str:
    if text[:3].isdigit():
        text = f"HTTP {text}"
    return text.replace("|", "\\|").replace("_", "\\_").replace("*", "\\*").replace("<", "\\<")
