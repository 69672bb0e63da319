"""Pauses, retries, and Retry-After."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskbridge.errors import ConfigError
from taskbridge.provider.clock import SystemClock
from taskbridge.provider.policy import PollPolicy, RetryPolicy, parse_retry_after, retries_for

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LATER = "Sun, 22 Nov 2026 12:02:00 GMT"  # two minutes


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("3600", 3600.0),
        (LATER, 120.0),
        ("Sunday, 22-Nov-26 12:02:00 GMT", 120.0),
        ("Sun Nov 22 12:02:00 2026", 120.0),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),  # past
    ],
)
def test_retry_after_is_read_in_its_legal_forms(value: str, seconds: float) -> None:
    assert parse_retry_after({"retry-after": value}, NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "-5",
        "1.5",
        "inf",
        "nan",
        "1e9",
        "9" * 400,
        "9" * 5000,
        "",
        "soon",
        "0x10",
        "2026-11-22T12:02:00Z",
        "١٢",
        "3, 9",
        "Sun, 22 Nov 99999 12:00:00 GMT",
        "Sun, 99 Nov 2026 12:00:00 GMT",
        "Xxx, 22 Foo 2026 12:00:00 GMT",
        "1_0",
        "+5",
    ],
)
def test_nonsense_in_retry_after_is_ignored(value: str) -> None:
    assert parse_retry_after({"retry-after": value}, NOW) is None


def test_a_distant_date_is_returned_unclipped() -> None:
    seconds = parse_retry_after({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, NOW)
    assert seconds is not None
    assert seconds > 86_400 * 365


@pytest.mark.parametrize("wrong", [timedelta(hours=1), timedelta(hours=-1), timedelta(days=400)])
def test_a_wrong_local_clock_does_no_harm_if_the_response_has_a_date(wrong: timedelta) -> None:
    headers = {"retry-after": LATER, "date": "Sun, 22 Nov 2026 12:00:00 GMT"}
    assert parse_retry_after(headers, NOW + wrong) == 120.0


def test_without_the_header_there_is_no_wait() -> None:
    assert parse_retry_after({}, NOW) is None


@given(st.text(st.characters(), max_size=60), st.text(max_size=40))
def test_no_retry_after_crashes(value: str, date: str) -> None:
    seconds = parse_retry_after({"retry-after": value, "date": date}, NOW)
    assert seconds is None or seconds >= 0.0


def test_pauses_double_up_to_their_ceiling() -> None:
    policy = RetryPolicy(attempts=10, first=0.5, at_most=20.0)
    assert [policy.pause(n, 1.0) for n in range(1, 9)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]
    assert policy.pause(10_000, 1.0) == 20.0
    assert policy.pause(3, 0.0) == 0.0


def test_pauses_are_spread_evenly_below_their_ceiling() -> None:
    policy, random = RetryPolicy(), Random(1)
    draws = [policy.pause(3, random.random()) for _ in range(10_000)]
    buckets = [sum(n / 5 <= draw < (n + 1) / 5 for draw in draws) for n in range(10)]
    assert all(800 <= bucket <= 1200 for bucket in buckets)


REPEATED = {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}


@pytest.mark.parametrize("status", range(100, 1000))
def test_one_table_decides_what_is_retried(status: int) -> None:
    if status in REPEATED:
        assert retries_for(status) > 10
    elif 500 <= status <= 599 and status not in (501, 505):
        assert retries_for(status) == 1
    else:
        assert retries_for(status) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"attempts": 0},
        {"attempts": 11},
        {"attempts": True},
        {"attempts": "3"},
        {"first": -0.1},
        {"first": float("nan")},
        {"at_most": float("inf")},
    ],
    ids=str,
)
def test_a_retry_policy_out_of_range_names_its_range(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"retry\.\w+ must be .*from .* to "):
        RetryPolicy(**fields)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "fields", [{"latency": 0.0}, {"interval": -1.0}, {"at_most": 1e9}, {"interval": float("nan")}], ids=str
)
def test_a_poll_policy_out_of_range_names_its_range(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"poll\.\w+ must be .*from .* to "):
        PollPolicy(**fields)


def test_a_poll_policy_takes_a_delay_or_an_interval() -> None:
    with pytest.raises(ConfigError, match="not both"):
        PollPolicy(latency=1.0, interval=1.0)


def test_the_system_clock_has_aware_times_and_even_randomness() -> None:
    clock = SystemClock()
    assert clock.now().utcoffset() == timedelta(0)
    assert clock.monotonic() <= clock.monotonic()
    assert all(0.0 <= clock.random() < 1.0 for _ in range(100))
