"""The suite that every provider passes, whoever wrote it.

Subclass it in a test file and name the provider:

    class TestAcme(ProviderConformance):
        provider = "acme"

Where the provider brings an emulator, that is all: its settings and sample tasks are taken from there. Where it does
not, override the fixtures `settings` and `samples` with settings of your own and with recorded answers.

The suite cannot be bent: a test that the subclass overrides or removes makes `test_no_test_is_bent` fail, unless it is
marked ``pytest.mark.xfail(reason=…)``, which says in public what the provider does not keep.
"""

# ruff: noqa: S101  # a suite asserts

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from taskbridge.testing.deeds import DeedConformance
from taskbridge.testing.samples import Sample

if TYPE_CHECKING:
    import pytest

__all__ = ["ProviderConformance", "Sample"]

LOCK: Final = "test_no_test_is_bent"


class ProviderConformance(DeedConformance):
    """What every provider keeps; subclass it and set `provider`."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Keep the lock itself from being bent."""
        super().__init_subclass__(**keywords)
        if getattr(cls, LOCK, None) is not getattr(ProviderConformance, LOCK):
            raise TypeError(f"{LOCK} is what keeps the suite whole; {cls.__name__} must not replace it")

    def test_no_test_is_bent(self) -> None:
        """A subclass neither overrides nor removes a test, unless it says in public why."""
        bent = [
            name
            for name in dir(ProviderConformance)
            if name.startswith("test_")
            and getattr(type(self), name, None) is not getattr(ProviderConformance, name)
            and not _excused(getattr(type(self), name, None))
        ]
        told = f"{', '.join(bent)}: mark what the provider does not keep with pytest.mark.xfail(reason=…)"
        assert bent == [], told


def _excused(test: object) -> bool:
    marks: Sequence[pytest.Mark] = getattr(test, "pytestmark", ())
    return any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks)
