"""The Grafana dashboard uses the metrics and labels that the code emits, by their names in Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY

import taskbridge as tb
from taskbridge.otel import Telemetry
from taskbridge.testing import Emulator

ROOT: Final = Path(__file__).resolve().parents[2]
DASHBOARD: Final[Mapping[str, Any]] = json.loads((ROOT / "docs" / "dashboards" / "taskbridge.json").read_text("utf-8"))
OBSERVING: Final = (ROOT / "docs" / "observing.md").read_text(encoding="utf-8")
METRIC: Final = re.compile(r"\b(?:taskbridge|http_client)_\w+(?=[{\[, )]|$)")
LABELS: Final = re.compile(r"by \(([^)]*)\)|(\w+)=~|\{\{(\w+)\}\}")


def expressions() -> list[str]:
    panels = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    alert = re.findall(r"^ +expr: (.+)$", OBSERVING, re.MULTILINE)
    assert alert
    return [*(each["expr"] for each in panels), *alert]


def metrics_of(expression: str) -> set[str]:
    labels = labels_of(expression)
    return {name for name in METRIC.findall(expression) if name not in labels}


def labels_of(text: str) -> set[str]:
    return {
        name.strip() for found in LABELS.findall(text) for part in found for name in part.split(",") if name.strip()
    }


@pytest.fixture(scope="module")
def emitted() -> Mapping[str, set[str]]:
    """Name of each series -> its labels, after a long poll, some polls and a retried request."""
    reader = PrometheusMetricReader()
    meters = MeterProvider([reader])
    telemetry = Telemetry(meter_provider=meters)
    with Emulator("cloudconvert", "scan-documents", speed=50) as emulator:
        for vendor, document in (("cloudconvert", b"%PDF-1.7"), ("scan-documents", b"\x89PNG\r\n\x1a\n" + bytes(40))):
            with tb.connect(vendor, **emulator.settings(vendor), poll={"interval": 0.05}) as client:
                client.observe(telemetry)
                emulator.fail_next(503)
                client.get(emulator.samples(vendor)["completed"])
                client.wait(client.submit("extract-text", document), timeout=60)
    found: dict[str, set[str]] = {}
    for family in REGISTRY.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    meters.shutdown()
    return found


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_uses_what_is_emitted(expression: str, emitted: Mapping[str, set[str]]) -> None:
    names = metrics_of(expression)
    assert names
    assert names <= emitted.keys()
    assert labels_of(expression) <= {label for name in names for label in emitted[name]}


def test_legends_show_the_labels_that_their_expression_keeps() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            assert labels_of(target["legendFormat"]) <= labels_of(target["expr"]), panel["title"]


def test_the_dashboard_shows_every_metric(emitted: Mapping[str, set[str]]) -> None:
    shown = {re.sub(r"_(?:bucket|count|sum)$", "", name) for each in expressions() for name in metrics_of(each)}
    ours = {re.sub(r"_(?:bucket|count|sum|created)$", "", name) for name in emitted if METRIC.fullmatch(name)}
    assert ours == shown


def test_the_page_names_every_metric(emitted: Mapping[str, set[str]]) -> None:
    table = re.findall(r"^\| `((?:taskbridge|http)\.[\w.]+)` \|", OBSERVING, re.MULTILINE)
    named = {name.replace(".", "_") for name in table}
    for series in (name for name in emitted if METRIC.fullmatch(name)):
        assert any(series.startswith(name) for name in named), series
    for name in named:
        assert any(series.startswith(name) for series in emitted), name
