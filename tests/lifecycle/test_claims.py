"""What a provider claims to do, it does; what it does not claim is refused before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import taskbridge as tb
from taskbridge.http import Flow
from taskbridge.model import Task
from taskbridge.provider import PLAIN_ID, Capabilities, IdKind, Provider, ProviderSettings
from taskbridge.registry import load_provider
from taskbridge.submission import Query, Submission
from taskbridge.testing import Emulator

Maker = Callable[..., Any]

VENDORS = ("cloudconvert", "scan-documents", "smartdocumentor", "expertai-extract")
IDS = {"cloudconvert": "x441E6HMhG", "scan-documents": "task_1", "smartdocumentor": "44", "expertai-extract": "t-1"}

# Call of the client -> how it is made, and the provider's method behind it.
CALLS: dict[str, Callable[[Any, str], Any]] = {
    "cancel": lambda client, task_id: client.cancel(task_id),
    "retry": lambda client, task_id: client.retry(task_id),
    "delete": lambda client, task_id: client.delete(task_id),
    "restart": lambda client, task_id: client.restart(task_id, destructive=True),
    "list": lambda client, _: list(client.list()),
    "recover": lambda client, _: client.recover(
        tb.SubmitUncertain("x", clue={"connection": client.name, "provider": client.provider, "reference": "r"})
    ),
}
METHODS = {"list": "list_page"}


UNCLAIMED = [
    (vendor, call) for vendor in VENDORS for call in CALLS if call not in load_provider(vendor).capabilities.calls
]


@pytest.mark.parametrize(("vendor", "call"), UNCLAIMED)
def test_what_is_not_claimed_is_refused_and_nothing_is_sent(vendor: str, call: str, scripted: Maker) -> None:
    made = scripted(vendor)
    with pytest.raises(tb.UnsupportedFeature, match="it offers get, wait, result, submit"):
        CALLS[call](made.client, IDS[vendor])
    assert made.transport.requests == []


@pytest.mark.parametrize("vendor", VENDORS)
def test_claims_and_methods_agree(vendor: str) -> None:
    kind = load_provider(vendor)
    claimed = set(kind.capabilities.calls)
    for call in (*CALLS, "submit"):
        method = METHODS.get(call, call)
        overridden = getattr(kind, method) is not getattr(Provider, method)
        assert overridden == (call in claimed), f"{vendor}: {call}"
    options = getattr(kind, "get_with") is not getattr(Provider, "get_with")  # noqa: B009  # as above
    assert bool(kind.capabilities.look_options) == options


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_neutral_operation_reaches_the_vendor(vendor: str, own_vendors: Emulator) -> None:
    needed: dict[str, dict[str, Any]] = {
        "cloudconvert": {"convert": {"output_format": "pdf"}},
        "scan-documents": {"convert": {"target_format": "image/png"}, "extract-pages": {"pages": "1"}},
    }.get(vendor, {})
    given: Any = "https://example.com/a.pdf" if vendor == "smartdocumentor" else b"%PDF-1.4"
    with tb.connect(vendor, **own_vendors.settings(vendor)) as client:
        for operation in client.capabilities.operations:
            task = client.submit(operation, given, options=needed.get(operation))
            assert client.get(task).native_id == task.native_id, operation


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_claims_are_data_that_holds_together(vendor: str) -> None:
    can = load_provider(vendor).capabilities
    assert can.inputs <= {"path", "bytes", "stream", "url", "file"}
    assert "url" in can.inputs
    assert not can.fetches_urls or "bytes" in can.inputs
    assert "extract-text" in can.operations
    assert not can.idempotency_key
    assert can.upload_limit is None or can.upload_limit > 0
    assert can.downloads is not None
    assert can.downloads.parts
    assert can.downloads.links == (can.downloads.link_ttl is not None)
    assert "files" in can.downloads.parts or not (can.downloads.links or can.downloads.resumes)
    assert can.listing is None or can.listing.page_size > 0


class Bare(Provider[ProviderSettings]):
    """A provider that can look up, and nothing else."""

    name = "bare"
    title = "Bare"
    docs = "https://example.com/"
    Settings = ProviderSettings
    capabilities = Capabilities(kinds=(IdKind(PLAIN_ID),), authentication="none")

    def get(self, task_id: str) -> Flow[Task]:
        raise NotImplementedError(task_id)


def test_a_provider_that_claims_nothing_refuses_all() -> None:
    bare = Bare(ProviderSettings(), "here")
    assert bare.capabilities.calls == ()
    begun: list[Callable[[], object]] = [
        lambda: bare.submit(Submission("x", "x", "r")),
        lambda: bare.list_page(Query(), None),
        lambda: bare.cancel("t"),
        lambda: bare.retry("t"),
        lambda: bare.delete("t"),
        lambda: bare.restart("t"),
        lambda: bare.recover({}),
        lambda: bare.get_with("t", {}),
    ]
    for begin in begun:
        with pytest.raises(tb.UnsupportedFeature, match=r"Bare cannot .+; it offers get, wait, result"):
            begin()
