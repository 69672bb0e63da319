"""No word of the old dialect and no British spelling is left in code, docs and tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PLACES: Final = (
    "taskbridge",
    "providers",
    "integrations",
    "docs",
    "tests",
    "benchmarks",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)
SUFFIXES: Final = frozenset({".py", ".md", ".toml", ".html", ".css", ".js", ".txt", ".jinja", ".in"})

# A word or phrase, as a regular expression between non-letters -> the word to use instead.
WORDS: Final[dict[str, str]] = {
    # Concepts, in any case.
    "fleets?": "poll scheduler",
    "lanes?": "connection queue",
    "crews?": "worker pool",
    "sweeps?|sweeping": "list scan",
    "wish(?:es|ed)?": "submit request, or what the caller passed",
    "spools?": "temporary files",
    "hauls?": "download",
    "dialogues?": "provider",
    "witness(?:es)?": "observation buffer",
    "surroundings|surrounded": "defaults, override_defaults",
    "newcomers?": "init, new-provider",
    "upkeep": "the name of the command",
    "clues?": "recovery token",
    "ripens?": "promote due",
    "governors?": "throttle",
    "look-ups?": "get, or status request",
    "bring(?:s|ing)? home|brought home|comes? home|came home": "download",
    "held lines?|holds? the line|holding the line": "long poll",
    "look(?:s|ed) at": "poll, check, read",
    "unknown fate|whose fate": "uncertain",
    "told|heard|hears": "notified, reported",
    "comes? of it|came of it|comes? of them|goes on|gone on with": "result; continues, resumes",
    "whoever|somebody|nobody": "the caller, another process, no waiter",
    "strangers?": "third party, plugin author",
    "learnt": "learned",
    # Classes and functions.
    "(?-i:Audience|Inbox|Verdict)": "Observers, EventBus, ErrorDetails",
    "(?-i:Lifted|Effort|LookAt|LookAtMany)": "EffectFlow, RequestOptions, PollTask, PollList",
    "(?-i:Channel|Authorise|doubtful_statuses|look_options|maybe_share|on_commit|next_why)": "Connection, "
    "RefreshCredential, uncertain_statuses, get_options, maybe_fraction, before_submit, next_poll_reason",
    # British spelling.
    "colour(?:s|ed|ing|less)?": "color",
    "(?:behavi|fav|neighb|hon|lab|rum|harb|endeav)our(?:s|ed|ing|ite|ites|al|able|hood)?": "-or",
    "(?:un)?recognis(?:e|es|ed|ing)": "recognize",
    "(?:un|re)?authoris(?:e|es|ed|ing|ation)": "authorize",
    "(?:un)?normalis(?:e|es|ed|ing|ation)": "normalize",
    "(?:de)?serialis(?:e|es|ed|ing|ation)": "serialize",
    "(?:un)?initialis(?:e|es|ed|ing|ation)": "initialize",
    "(?:organ|summar|minim|maxim|optim|random|special|general|real|synchron|standard|custom|final|local|memor|"
    "emphas|priorit|visual|sanit|parallel|token|categor|capital|character|apolog|util|stabil|canonical)"
    "is(?:e|es|ed|ing|ation)": "-ize",
    "analys(?:e|ed|es|ing)(?<!analyses)": "analyze",
    "centres?|whilst|amongst|artefacts?|grey": "center, while, among, artifact, gray",
}

# Path (from the root, as a prefix) -> words that have another meaning there, and why.
ALLOWED: Final[dict[str, tuple[str, str]]] = {
    "tests/core/test_words.py": (".*", "the table itself"),
    "docs/examples/taskbridge-zamzar/": ("initialising|unrecognised", "Zamzar's status and error message"),
    "taskbridge/_transport/curl.py": ("nobody", "an option of libcurl"),
    "integrations/taskbridge-airflow/": ("behaviours?", "Airflow's own names"),
    "docs/tutorial-provider.md": ("initialising", "Zamzar's status"),
}


def files() -> Iterator[Path]:
    """Every text file that a reader may open; nothing that is generated or installed."""
    for place in PLACES:
        root = ROOT / place
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.suffix in SUFFIXES and "__pycache__" not in path.parts and path.is_file():
                yield path


FILES: Final = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in files()}
LOWER: Final = {name: text.lower() for name, text in FILES.items()}


def as_word(pattern: str) -> re.Pattern[str]:
    """A word in any case, also as a part of a name: ``fleet``, ``_poll_fleet``, ``FleetOf``, ``PollFleet``."""
    start, end = r"(?-i:(?<![A-Za-z])|(?<=[a-z])(?=[A-Z]))", r"(?-i:(?![a-z]))"
    return re.compile(f"{start}(?:{pattern}){end}", re.IGNORECASE)


def found(pattern: str) -> Iterator[str]:
    """Every place of a word, in texts and in file names."""
    word, rough = as_word(pattern), re.compile(pattern.lower())
    for name, text in FILES.items():
        if match := word.search(name):
            yield f"{name}: {match[0]}"
        if rough.search(LOWER[name]) is None:  # much faster, and true of most files
            continue
        allowed = next((words for path, (words, _) in ALLOWED.items() if name.startswith(path)), None)
        for match in word.finditer(text):
            if allowed is None or not re.fullmatch(allowed, match[0], re.IGNORECASE):
                yield f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"


@pytest.mark.parametrize("pattern", WORDS)
def test_no_old_word_is_left(pattern: str) -> None:
    lines = list(found(pattern))
    assert not lines, f"say {WORDS[pattern]}: " + "; ".join(lines)


@pytest.mark.parametrize(
    "name", ["fleet", "poll_fleet", "FleetOf", "PollFleet", "FLEETS", "recognised", "_told", "colour"]
)
def test_old_words_are_found_in_names_too(name: str) -> None:
    assert any(as_word(pattern).search(name) for pattern in WORDS)


@pytest.mark.parametrize("name", ["planes", "color", "untold", "recognized", "homes", "laned"])
def test_other_words_are_not_found(name: str) -> None:
    assert not any(as_word(pattern).search(name) for pattern in WORDS)
