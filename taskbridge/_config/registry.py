"""Which providers are installed, which distribution each comes from, and why one cannot be used.

Providers are found by their ``taskbridge.providers`` entry points, built-in ones included. Names and distributions are
listed from metadata, without importing anything. A provider is imported when it is needed; if that fails, only that
provider is disabled.

A name clash is settled from metadata, before any import: a third party that takes a built-in provider's name is
disabled, and of two third parties with the same name both are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from taskbridge._config.defaults import current_defaults
from taskbridge._config.files import CONNECTION_NAME, nearest
from taskbridge.errors import ConfigError, ProviderLoadError, ProviderNotFound, printable
from taskbridge.provider.secrets import strip_tracebacks

if TYPE_CHECKING:
    from taskbridge.provider.base import Provider
    from taskbridge.provider.capabilities import Capabilities

GROUP: Final = "taskbridge.providers"
_DEFAULT_DISTRIBUTION: Final = "document-taskbridge"  # for a frozen program without metadata
NO_METADATA: Final = (
    "no provider is found, not even a built-in one: the package's metadata is missing; a frozen program must include "
    f"it (PyInstaller: --copy-metadata {_DEFAULT_DISTRIBUTION})"
)
_PACKAGE_FILE: Final = "taskbridge/__init__.py"
_REQUIRED: Final = ("name", "title", "docs", "Settings", "capabilities")


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """One installed provider.

    Attributes:
        name: Entry-point name.
        distribution: Distribution that contains it, or None if its metadata is broken.
        version: Version of that distribution.
        builtin: Whether it is part of taskbridge.
        capabilities: What it can do; None if it cannot be used.
        title: The vendor's name; None if it cannot be used.
        problem: Why it cannot be used, or None.
    """

    name: str
    distribution: str | None
    version: str | None
    builtin: bool
    capabilities: Capabilities | None = None
    title: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry point and what metadata says about its distribution."""

    point: EntryPoint
    name: str
    distribution: str | None
    version: str | None
    builtin: bool

    @property
    def source(self) -> str:
        """The distribution, or what it loads if that has no name."""
        return self.distribution or self.point.value

    @property
    def origin(self) -> str:
        """The distribution for messages."""
        return f"{self.distribution} {self.version}" if self.distribution else "an unnamed distribution"


def providers() -> tuple[ProviderInfo, ...]:
    """Return the installed providers, sorted by name, with their capabilities or the reason why they cannot be used."""
    entries = _entries()
    return tuple(_info(entry, entries) for entry in entries)


def provider_names() -> list[str]:
    """Return the names of the installed providers, usable or not; imports nothing."""
    return sorted({entry.name for entry in _entries()})


def builtin_providers() -> tuple[str, ...]:
    """Return the names of the providers that are part of taskbridge; imports nothing."""
    return tuple(entry.name for entry in _entries() if entry.builtin)


def distribution_name() -> str:
    """Return the name of the distribution that contains this package, for ``pip install``."""
    return next(
        (entry.distribution for entry in _entries() if entry.builtin and entry.distribution), _DEFAULT_DISTRIBUTION
    )


def require_extra(module: str, extra: str, purpose: str) -> ConfigError:
    """Return the error for a missing module, which this extra installs and this purpose needs.

    The extra `fsspec` does not install the packages for each storage: those are named beside it.
    """
    more = f" {module}" if extra == "fsspec" != module else ""
    return ConfigError(f"{purpose} needs {module}; install it with: pip install '{distribution_name()}[{extra}]'{more}")


@strip_tracebacks
def load_provider(name: str) -> type[Provider[Any]]:
    """Import a provider.

    Raises:
        ProviderNotFound: None of that name is installed; the message offers the nearest name, and does not repeat the
            given one, which may be a credential in the wrong place.
        ProviderLoadError: It is installed but cannot be used; the message names the distribution and the cause.
    """
    override = current_defaults().providers.get(name)
    if override is not None:
        return _checked(override, name, "this process")
    installed = _entries()
    entries = [entry for entry in installed if entry.name == name]
    if not entries:
        if not installed:
            raise ProviderNotFound(NO_METADATA)
        names = sorted({entry.name for entry in installed})
        hint = f"{nearest(name, names)}installed are {', '.join(names) or 'none'}"
        raise ProviderNotFound(f"no provider of that name is installed; {hint}")
    usable = next((entry for entry in entries if _clash(entry, entries) is None), None)
    if usable is None:
        raise ProviderLoadError(f"provider {name!r} cannot be used: {_clash(entries[0], entries)}", provider=name)
    return _load(usable, unique=len(entries) == 1)


@strip_tracebacks
def check_provider(given: object) -> type[Provider[Any]]:
    """Return a provider's class that a program uses without a distribution, once it is checked.

    Raises:
        ConfigError: It is no class of a provider.
        ProviderLoadError: The class cannot be used.
    """
    from taskbridge.provider.base import Provider  # noqa: PLC0415  # imports pydantic, which listing does not need

    if not (isinstance(given, type) and issubclass(given, Provider)):
        shown = given.__name__ if isinstance(given, type) else type(given).__name__
        raise ConfigError(f"connect takes a provider's name or its class, not {printable(shown, 60)}")
    kind: type[Any] = given  # pyright: ignore[reportUnknownVariableType]  # any settings
    name: object = getattr(kind, "name", None)
    if not isinstance(name, str) or CONNECTION_NAME.fullmatch(name) is None:
        raise ProviderLoadError(
            f"the class {kind.__name__} cannot be used: its name must be lower-case letters, digits and dashes"
        )
    return _checked(kind, name, "this program")


def load_builtin_providers() -> Mapping[str, type[Provider[Any]]]:
    """Return the usable built-in providers by name, to say whose setting a misplaced one is."""
    found: dict[str, type[Provider[Any]]] = {}
    for name in builtin_providers():
        with suppress(ProviderLoadError):
            found[name] = load_provider(name)
    return found


# Metadata.


def _entries() -> tuple[_Entry, ...]:
    # The same distribution may be on the path twice (a tree and its editable install): it counts once.
    found: dict[tuple[str, str | None, str], _Entry] = {}
    for point in entry_points(group=GROUP):
        entry = _Entry(point, point.name, _field(point, "Name"), _field(point, "Version"), _is_builtin(point))
        found[entry.name, entry.distribution, point.value] = entry
    return tuple(sorted(found.values(), key=lambda entry: (entry.name, entry.distribution or "")))


def _field(point: EntryPoint, field: str) -> str | None:
    try:
        metadata = point.dist.metadata if point.dist is not None else None
    except FileNotFoundError:  # of the package importlib-metadata, where the standard module has None
        return None
    # Test for the field first: newer Pythons will raise for a missing one.
    return metadata[field] if metadata is not None and field in metadata else None


def _is_builtin(point: EntryPoint) -> bool:
    """Whether its distribution contains this package: the file list names it, or it is installed from this tree."""
    if point.dist is None:
        return False
    record = point.dist.read_text("RECORD")
    if record is None:  # some system packages have no file list
        return _field(point, "Name") == _DEFAULT_DISTRIBUTION
    if re.search(rf"^{re.escape(_PACKAGE_FILE)},", record, re.MULTILINE):
        return _is_this_package(Path(str(point.dist.locate_file(_PACKAGE_FILE))))
    try:
        source = json.loads(point.dist.read_text("direct_url.json") or "{}")
        tree = url2pathname(urlsplit(str(source["url"])).path) if source["dir_info"]["editable"] else ""
    except (ValueError, KeyError, TypeError):
        return False
    return bool(tree) and _is_this_package(Path(tree, _PACKAGE_FILE))


def _is_this_package(path: Path) -> bool:
    return path.is_file() and path.samefile(Path(__file__).parents[1] / "__init__.py")


def _clash(entry: _Entry, entries: Sequence[_Entry]) -> str | None:
    """Why an entry is disabled by others of the same name; None if it is not."""
    others = [each for each in entries if each.name == entry.name and each.source != entry.source]
    if not others or entry.builtin:
        return None
    if any(each.builtin for each in others):
        return f"the name belongs to the built-in provider; uninstall {entry.distribution} or rename its entry point"
    names = ", ".join(sorted(each.distribution or "an unnamed distribution" for each in [entry, *others]))
    return f"several distributions contain it ({names}); uninstall all but one"


def _info(entry: _Entry, entries: Sequence[_Entry]) -> ProviderInfo:
    about = (entry.name, entry.distribution, entry.version, entry.builtin)
    problem = _clash(entry, entries)
    if problem is not None:
        return ProviderInfo(*about, problem=problem)
    try:
        loaded = _load(entry, unique=[each.name for each in entries].count(entry.name) == 1)
    except ProviderLoadError as error:
        return ProviderInfo(*about, problem=error.message)
    return ProviderInfo(*about, loaded.capabilities, loaded.title)


# Imports.


@cache
def _load(entry: _Entry, *, unique: bool) -> type[Provider[Any]]:
    from taskbridge.provider.base import Provider  # noqa: PLC0415  # imports pydantic, which listing does not need

    try:
        found = _import(entry.point) if unique else entry.point.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a third party's import may raise anything
        message = printable(str(error), 300)
        cause = f"{type(error).__name__}: {message}" if message else type(error).__name__
    else:
        if isinstance(found, type) and issubclass(found, Provider):
            return _checked(found, entry.name, entry.origin)  # pyright: ignore[reportUnknownArgumentType]  # any settings
        cause = f"{entry.point.value} is no Provider class"
    remedy = f"install what it needs, or upgrade or uninstall {entry.distribution or 'its distribution'}"
    raise ProviderLoadError(
        f"provider {entry.name!r} of {entry.origin} cannot be used: {cause}; {remedy}", provider=entry.name
    )


def _import(point: EntryPoint) -> object:
    """Load an entry point whose name is unique; raises whatever the import raises."""
    from stevedore.driver import DriverManager  # noqa: PLC0415  # listing needs no stevedore
    from stevedore.exception import MultipleMatches, NoMatches  # noqa: PLC0415  # the same

    failures: list[BaseException] = []

    def on_failure(_manager: object, failed: EntryPoint, error: BaseException) -> None:
        if failed.value == point.value:
            failures.append(error)

    try:
        manager: Any = DriverManager(GROUP, point.name, on_load_failure_callback=on_failure)
        if manager.extensions[0].entry_point_target == point.value:
            return manager.driver
    except (NoMatches, MultipleMatches):  # stevedore's cache is older than the metadata
        pass
    if failures:
        raise failures[0]
    return point.load()


def _checked(provider: type[Provider[Any]], name: str, origin: str) -> type[Provider[Any]]:
    from taskbridge._config.settings import CommonSettings  # noqa: PLC0415  # only when something is loaded

    missing = [attribute for attribute in _REQUIRED if not hasattr(provider, attribute)]
    problem = ""
    if missing:
        problem = f"the class lacks {', '.join(missing)}"
    elif provider.name != name:
        problem = f"its class says it is {printable(provider.name, 60)!r}"
    elif clash := sorted(set(provider.Settings.model_fields) & set(CommonSettings.model_fields)):
        problem = f"its settings redefine {', '.join(clash)}"
    if problem:
        raise ProviderLoadError(f"provider {name!r} of {origin} cannot be used: {problem}", provider=name)
    return provider
