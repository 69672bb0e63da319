"""One interface over the asynchronous task APIs of document vendors.

Start with `connect`, which returns a `Client` for one vendor account. `Bridge` opens every connection of a
configuration, and `taskbridge.aio` has the same names, awaitable. Importing this package loads nothing else until it is
used; the public names are in `taskbridge._public`.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # importing typing would double the time of this import

if TYPE_CHECKING:
    from taskbridge._public import *  # noqa: F403  # that file names them
    from taskbridge.store import Relay as Relay
    from taskbridge.store import Store as Store
    from taskbridge.store import Watcher as Watcher

__version__ = "0.1.0"

_STORE = ("Relay", "Store", "Watcher")  # not in `__all__`: they need an extra


def __getattr__(name: str) -> object:
    if name == "__all__":
        return __dir__()
    if name in _STORE:
        return getattr(import_module("taskbridge.store"), name)
    if not name.startswith("_"):
        try:
            return import_module(f"taskbridge.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"taskbridge.{name}":
                raise
        public = import_module("taskbridge._public")
        if hasattr(public, name):
            value = globals()[name] = getattr(public, name)
            return value
    raise AttributeError(f"module 'taskbridge' has no attribute {name!r}")


def __dir__() -> list[str]:
    names = vars(import_module("taskbridge._public"))
    return sorted({"aio", *(name for name in names if name.isidentifier() and not name.startswith("_"))})
