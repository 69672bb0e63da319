"""Which providers are installed, from where, and which of them cannot be used and why.

Providers are found by their ``taskbridge.providers`` entry points, the built-in ones through the same door as
strangers. Names and distributions are listed without importing anything; a provider is imported when it is needed, one
at a time, and whatever goes wrong then disables that provider only.

A stranger that takes the name of a built-in provider is disabled; of two strangers with one name, both are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final

from taskbridge._config.defaults import current_defaults
from taskbridge.errors import ConfigError, ProviderLoadError, ProviderNotFound, printable

if TYPE_CHECKING:
    from taskbridge.provider.base import Provider
    from taskbridge.provider.capabilities import Capabilities

GROUP: Final = "taskbridge.providers"


_OURS: Final = "taskbridge"  # our own distribution


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """One installed provider.

    Attributes:
        name: Entry-point name.
        distribution: Distribution that brings it, or None where its metadata is broken.
        version: Version of that distribution.
        builtin: Whether it comes with taskbridge.
        capabilities: What it can do; None where it cannot be used.
        title: The vendor's name; None where it cannot be used.
        problem: Why it cannot be used, or None.
    """

    name: str
    distribution: str | None
    version: str | None
    builtin: bool
    capabilities: Capabilities | None = None
    title: str | None = None
    problem: str | None = None


def providers() -> tuple[ProviderInfo, ...]:
    """What is installed, sorted by name, with what it can do, and what failed to load and why."""
    entries = _entries()
    return tuple(_info(entry, entries) for entry in entries)


def provider_names() -> list[str]:
    """Names of what is installed, usable or not; nothing is imported."""
    return sorted({entry.name for entry in _entries()})


def builtin_providers() -> tuple[str, ...]:
    """Names of the providers that come with taskbridge."""
    return tuple(e.name for e in _entries() if _distribution(e) == _OURS)


def load_provider(name: str) -> type[Provider[Any]]:
    """Import a provider.

    Raises:
        ProviderNotFound: None of that name is installed; the nearest names are offered.
        ProviderLoadError: It is installed but cannot be used; the message names the distribution and the cause.
    """
    placed = current_defaults().providers.get(name)
    if placed is not None:
        return _checked(placed, name, "this process")
    installed = _entries()
    entries = [e for e in installed if e.name == name]
    if not entries:
        names = sorted({e.name for e in installed})
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ProviderNotFound(
            f"no provider {printable(name, 60)!r} is installed; {hint}installed are {', '.join(names) or 'none'}"
        )
    usable = [e for e in entries if _clash(e, entries) is None]
    if not usable:
        raise ProviderLoadError(f"provider {name!r} cannot be used: {_clash(entries[0], entries)}", provider=name)
    return _load(usable[0].name, usable[0])


def loaded_providers() -> Mapping[str, type[Provider[Any]]]:
    """The usable built-in providers, to say whose a setting is; what cannot be imported is left out."""
    found: dict[str, type[Provider[Any]]] = {}
    for name in builtin_providers():
        try:
            found[name] = load_provider(name)
        except ProviderLoadError:
            continue
    return found


def _entries() -> tuple[EntryPoint, ...]:
    # The same distribution may stand on the path twice (a tree and its editable install): one line is enough.
    found = {(e.name, _distribution(e), e.value): e for e in entry_points(group=GROUP)}
    return tuple(sorted(found.values(), key=lambda e: (e.name, _distribution(e) or "")))


def _distribution(entry: EntryPoint) -> str | None:
    return _told_by_metadata(entry, "Name")


def _told_by_metadata(entry: EntryPoint, field: str) -> str | None:
    # Asked first whether it is there: newer Pythons will raise for a field that is not.
    metadata = entry.dist.metadata if entry.dist is not None else None
    return metadata[field] if metadata is not None and field in metadata else None


def _origin(entry: EntryPoint) -> str:
    """What tells two entry points of one name apart: the distribution, else what they point at."""
    return _distribution(entry) or entry.value


def _clash(entry: EntryPoint, entries: Sequence[EntryPoint]) -> str | None:
    others = [e for e in entries if e.name == entry.name and _origin(e) != _origin(entry)]
    if not others or _distribution(entry) == _OURS:
        return None
    names = ", ".join(sorted(_distribution(e) or "an unnamed distribution" for e in [entry, *others]))
    if any(_distribution(e) == _OURS for e in others):
        return f"the name belongs to the built-in provider; uninstall {_distribution(entry)} or rename its entry point"
    return f"several distributions bring it ({names}); uninstall all but one"


def _info(entry: EntryPoint, entries: Sequence[EntryPoint]) -> ProviderInfo:
    distribution = _distribution(entry)
    version = _told_by_metadata(entry, "Version")
    builtin = distribution == _OURS
    problem = _clash(entry, entries)
    if problem is None:
        try:
            loaded = _load(entry.name, entry)
        except ProviderLoadError as error:
            problem = error.message
        else:
            return ProviderInfo(entry.name, distribution, version, builtin, loaded.capabilities, loaded.title)
    return ProviderInfo(entry.name, distribution, version, builtin, problem=problem)


@cache
def _load(name: str, entry: EntryPoint) -> type[Provider[Any]]:
    from stevedore.driver import DriverManager  # noqa: PLC0415  # listing needs no stevedore

    from taskbridge.provider.base import Provider  # noqa: PLC0415  # imports pydantic, which listing does not need

    class OneDriver(DriverManager):  # type: ignore[type-arg]  # generic in newer stevedores only
        """Loads the entry point that we mean, past stevedore's cache on disk: that one may be out of date."""

        def list_entry_points(self) -> list[EntryPoint]:
            return [entry]

    causes: list[str] = []

    def failed(_manager: object, _entry: object, error: BaseException) -> None:
        causes.append(_told(error))

    name_of, version = _distribution(entry), _told_by_metadata(entry, "Version")
    origin = f"{name_of} {version}" if name_of else "an unnamed distribution"
    found: object = None
    try:
        manager: Any = OneDriver(GROUP, name, invoke_on_load=False, on_load_failure_callback=failed)
        found = manager.driver
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's import may raise anything
        causes.append(_told(error))
    if isinstance(found, type) and issubclass(found, Provider):
        return _checked(found, name, origin)  # pyright: ignore[reportUnknownArgumentType]  # its settings are its own
    cause = causes[0] if causes else f"{entry.value} is no Provider class"
    remedy = f"install what it needs, or upgrade or uninstall {_distribution(entry) or 'what brings it'}"
    raise ProviderLoadError(f"provider {name!r} of {origin} cannot be used: {cause}; {remedy}", provider=name)


def _told(error: BaseException) -> str:
    words = printable(str(error), 300)
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _checked(provider: type[Provider[Any]], name: str, origin: str) -> type[Provider[Any]]:
    missing = [a for a in ("name", "title", "docs", "Settings", "capabilities") if not hasattr(provider, a)]
    if missing:
        raise ProviderLoadError(
            f"provider {name!r} of {origin} cannot be used: the class lacks {', '.join(missing)}", provider=name
        )
    if provider.name != name:
        raise ProviderLoadError(
            f"provider {name!r} of {origin} cannot be used: its class says it is {printable(provider.name, 60)!r}",
            provider=name,
        )
    clash = set(provider.Settings.model_fields) & set(_common_keys())
    if clash:
        raise ProviderLoadError(
            f"provider {name!r} of {origin} cannot be used: its settings redefine {', '.join(sorted(clash))}",
            provider=name,
        )
    return provider


def _common_keys() -> tuple[str, ...]:
    from taskbridge._config.settings import CommonSettings  # noqa: PLC0415  # only when something is loaded

    return tuple(CommonSettings.model_fields)


def require_extra(module: str, extra: str, purpose: str) -> ConfigError:
    """The error for a missing optional dependency.

    Args:
        module: The module that is missing.
        extra: The extra that brings it.
        purpose: What needs it.
    """
    return ConfigError(f"{purpose} needs {module}; install it with: pip install 'taskbridge[{extra}]'")
