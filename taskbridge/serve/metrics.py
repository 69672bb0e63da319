"""The state of a store as metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from taskbridge.serve.view import Reading, Workers, all_accounts, is_silent
from taskbridge.store import AccountStatus, Phase, State
from taskbridge.store.overview import MOST_UNREAD


def exposition(reading: Reading, workers: Workers, now: datetime) -> bytes:
    """Return the metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StoreCollector(reading, workers, now))
    return generate_latest(registry)


class _StoreCollector(Collector):
    def __init__(self, reading: Reading, workers: Workers, now: datetime) -> None:
        self._reading = reading
        self._workers = workers
        self._now = now

    def collect(self) -> Iterator[Metric]:
        watches = GaugeMetricFamily("taskbridge_store_watches", "Watches, by state.", labels=("connection", "state"))
        submissions = GaugeMetricFamily(
            "taskbridge_store_submissions", "Submissions, by phase.", labels=("connection", "phase")
        )
        owned = GaugeMetricFamily(
            "taskbridge_store_owned_here", "1 if this server works on the connection.", labels=("connection",)
        )
        silent = GaugeMetricFamily(
            "taskbridge_store_owner_silent",
            "1 if no process has reported that it works on the connection for more than 150 seconds.",
            labels=("connection",),
        )
        for account in all_accounts(self._reading, self._workers):  # also 0, so that an alert sees the first of a kind
            name = account.connection
            for state in State:
                watches.add_metric((name, state.value), account.watches.get(state, 0))
            for phase in Phase:
                submissions.add_metric((name, phase.value), account.submissions.get(phase, 0))
        for account in self._reading.accounts:
            name = account.connection
            owned.add_metric((name,), name in self._workers.owned)
            silent.add_metric((name,), is_silent(account, self._now))
        yield from (watches, submissions, owned, silent)
        yield from self._reported()
        yield from self._consumers()

    def _reported(self) -> Iterator[Metric]:
        gauges: dict[str, tuple[str, Callable[[AccountStatus], float]]] = {
            "taskbridge_store_account_refused": ("1 if the vendor refuses the credential.", lambda s: s.is_refused),
            "taskbridge_store_outage": ("1 if the vendor does not respond.", lambda s: s.outage_since is not None),
            "taskbridge_store_overload": (
                "Requests per second that the intervals need, divided by the rate; above 1, ends are found late.",
                lambda s: s.overload,
            ),
            "taskbridge_store_in_flight_polls": ("Polls that wait for their response.", lambda s: s.in_flight),
        }
        for name, (text, value) in gauges.items():
            gauge = GaugeMetricFamily(name, text, labels=("connection",))
            for connection, status in self._statuses():
                gauge.add_metric((connection,), value(status))
            yield gauge
        rate = GaugeMetricFamily(
            "taskbridge_store_rate_per_second", "Requests per second allowed at present.", labels=("connection",)
        )
        delay = GaugeMetricFamily(
            "taskbridge_store_detection_delay_seconds",
            "Mean expected time between the end of a task and its detection.",
            labels=("connection",),
        )
        requests = CounterMetricFamily(
            "taskbridge_store_requests", "Requests of the present owner, by kind.", labels=("connection", "kind")
        )
        slowed_down = CounterMetricFamily(
            "taskbridge_store_slowed_down",
            "Responses that asked the present owner for fewer requests (429).",
            labels=("connection",),
        )
        usage = CounterMetricFamily(
            "taskbridge_store_usage", "Cost of the present owner's tasks, by unit.", labels=("connection", "unit")
        )
        for connection, status in self._statuses():
            if status.rate is not None:
                rate.add_metric((connection,), status.rate)
            if status.mean_delay is not None:
                delay.add_metric((connection,), status.mean_delay)
            for kind, count in status.requests.items():
                requests.add_metric((connection, kind), count)
            slowed_down.add_metric((connection,), status.slowed_down)
            for unit, amount in status.usage.items():
                usage.add_metric((connection, unit), amount)
        yield from (rate, delay, requests, slowed_down, usage)

    def _statuses(self) -> Iterator[tuple[str, AccountStatus]]:
        for account in self._reading.accounts:
            if account.status is not None:
                yield account.connection, account.status

    def _consumers(self) -> Iterator[Metric]:
        unread = GaugeMetricFamily(
            "taskbridge_store_unread_events",
            f"Events that a consumer has not acknowledged; more than {MOST_UNREAD} are shown as {MOST_UNREAD}.",
            labels=("consumer",),
        )
        for consumer, count in self._reading.unread.items():
            unread.add_metric((consumer,), min(count, MOST_UNREAD))
        retried = GaugeMetricFamily(
            "taskbridge_store_retried_deliveries",
            "Events whose delivery failed and is tried again.",
            labels=("consumer",),
        )
        dead = GaugeMetricFamily(
            "taskbridge_store_dead_letters", "Events whose delivery is not tried again.", labels=("consumer",)
        )
        counts = {row["consumer"]: row for row in self._reading.delivery_counts}
        for consumer in sorted({*self._reading.unread, *counts}):
            row = counts.get(consumer)
            retried.add_metric((consumer,), 0 if row is None else row["failed"] - row["dead"])
            dead.add_metric((consumer,), 0 if row is None else row["dead"])
        yield from (unread, retried, dead)
