"""The suite of tests that every provider passes.

Subclass it in a test file and name the provider:

    class TestAcme(ProviderConformance):
        provider = "acme"

If the provider has an emulator, that is all: its settings and sample tasks are used. If not, override the fixtures
`settings` and `samples` with settings of your own and with recorded responses. A provider without a distribution is
given as its class, and its emulator as `emulator_class`.

A subclass cannot weaken the suite: if it overrides or removes a test, `test_no_test_is_overridden` fails, unless the
test is marked ``pytest.mark.xfail(reason=…)``, which states openly what the provider does not support.
"""

# ruff: noqa: S101  # a suite asserts

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from taskbridge.testing.conformance.operations import OperationConformance
from taskbridge.testing.conformance.samples import Sample

if TYPE_CHECKING:
    import pytest

__all__ = ["ProviderConformance", "Sample"]

LOCK: Final = "test_no_test_is_overridden"


class ProviderConformance(OperationConformance):
    """What is true of every provider; subclass it and set `provider`."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Reject a subclass that overrides the lock itself."""
        super().__init_subclass__(**keywords)
        if getattr(cls, LOCK, None) is not getattr(ProviderConformance, LOCK):
            raise TypeError(f"{cls.__name__} must not override {LOCK}, which keeps the suite complete")

    def test_no_test_is_overridden(self) -> None:
        """A subclass neither overrides nor removes a test, unless it is marked xfail with a reason."""
        overridden = [
            name
            for name in dir(ProviderConformance)
            if name.startswith("test_")
            and getattr(type(self), name, None) is not getattr(ProviderConformance, name)
            and not _is_marked(getattr(type(self), name, None))
        ]
        assert not overridden, (
            f"{', '.join(overridden)}: mark what the provider does not support with pytest.mark.xfail(reason=…)"
        )


def _is_marked(test: object) -> bool:
    marks: Sequence[pytest.Mark] = getattr(test, "pytestmark", ())
    return any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks)
