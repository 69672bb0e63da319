"""The pytest plugin: fixtures for tests of applications. pytest loads it by itself; unused fixtures import nothing.

* ``taskbridge_clock``: virtual time, for all clients that the test creates.
* ``taskbridge_emulator``: runs emulated vendors, and points configured connections to them.
* ``taskbridge_script``: a scripted vendor.
* ``taskbridge_recording``: real traffic, recorded once and then replayed.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from taskbridge.emulator import Plan
    from taskbridge.emulator.shell import Emulator
    from taskbridge.testing.clock import VirtualClock
    from taskbridge.testing.recording import RecordingTransport, ReplayTransport
    from taskbridge.testing.scripted import ScriptedVendor

_MODES: Final = ("replay", "record", "auto")
_MASKED: Final = pytest.StashKey[dict[str, dict[str, str]]]()  # recording -> what it masked for its shape


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of `taskbridge_recording`."""
    parser.getgroup("taskbridge").addoption(
        "--taskbridge-record",
        choices=_MODES,
        default="replay",
        help="what tests with taskbridge_recording do: replay their recordings (default), record them again from the "
        "vendors, or auto: record the missing ones and replay the others",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker of `taskbridge_recording`."""
    config.addinivalue_line(
        "markers", "taskbridge_recording(allow=…): places that taskbridge_recording records whatever they look like"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List what new recordings masked because it looks like a credential."""
    for path, masked in config.stash.setdefault(_MASKED, {}).items():
        terminalreporter.section(f"taskbridge: masked in {path}")
        for place, shape in masked.items():
            terminalreporter.line(f"{place} ({shape})")


@pytest.fixture
def taskbridge_clock() -> Iterator[VirtualClock]:
    """Virtual time that starts at the present: all clients created in this test use it, so that nothing really waits.

    Emulators that ``taskbridge_emulator`` runs in the same test use it, too.
    """
    from taskbridge._config.defaults import current_defaults, override_defaults  # noqa: PLC0415  # only if it is used
    from taskbridge.provider.clock import SystemClock  # noqa: PLC0415  # the same
    from taskbridge.testing.clock import VirtualClock  # noqa: PLC0415  # the same
    from taskbridge.testing.virtual_connections import RealTransports  # noqa: PLC0415  # the same

    clock = VirtualClock(now=SystemClock().now())
    with override_defaults(clock=clock, transports=current_defaults().transports or RealTransports()):
        yield clock


class _Configuration:
    """The connections that a test's fixtures create, as a configuration file in a folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path = folder / "taskbridge.toml"
        self.monkeypatch = monkeypatch
        self._tables: dict[str, Mapping[str, str]] = {}

    def add(self, tables: Mapping[str, Mapping[str, str]]) -> None:
        """Add connections; the very first is the default."""
        from taskbridge.emulator.export import connections_toml  # noqa: PLC0415  # only if it is used

        self._tables |= tables
        self._path.write_text(connections_toml(self._tables), encoding="utf-8")
        self.monkeypatch.setenv("TASKBRIDGE_CONFIG", str(self._path))


@pytest.fixture
def _taskbridge_configuration(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> _Configuration:
    return _Configuration(tmp_path_factory.mktemp("taskbridge"), monkeypatch)


class EmulatorFactory:
    """Runs emulated vendors for one test, in its virtual time if it has one; the value of ``taskbridge_emulator``."""

    def __init__(self, clock: VirtualClock | None, configuration: _Configuration, stack: ExitStack) -> None:
        self._clock = clock
        self._configuration = configuration
        self._stack = stack

    def __call__(
        self,
        *vendors: str,
        connections: Mapping[str, str] | None = None,
        speed: float = 50.0,
        seed: int = 0,
        plan: Plan | None = None,
    ) -> Emulator:
        """Run vendors until the end of the test.

        Args:
            vendors: Their names; by default those of ``connections``, or else all that are installed.
            connections: Name of a connection -> vendor. These connections point here, overriding the application's
                configuration; if the application names no configuration file, they are its only connections.
            speed: Vendor seconds per real second; ignored in a test with ``taskbridge_clock``.
            seed: The same seed gives the same ids.
            plan: How long tasks take and how they end, unless the name of a document says otherwise.
        """
        from taskbridge.emulator.shell import Emulator  # noqa: PLC0415  # an extra

        configured = dict(connections or {})
        names = dict.fromkeys([*vendors, *configured.values()])
        emulator = self._stack.enter_context(Emulator(*names, speed=speed, seed=seed, plan=plan, clock=self._clock))
        if configured:
            tables = {name: {"provider": vendor, **emulator.settings(vendor)} for name, vendor in configured.items()}
            self._configuration.add(tables)
        for name, vendor in configured.items():
            for variable, value in emulator.environment(name, vendor).items():
                self._configuration.monkeypatch.setenv(variable, value)
        return emulator


@pytest.fixture
def taskbridge_emulator(
    request: pytest.FixtureRequest, _taskbridge_configuration: _Configuration
) -> Iterator[EmulatorFactory]:
    """Runs emulated vendors: ``taskbridge_emulator("cloudconvert")``, or with ``connections={"invoices": …}``."""
    is_virtual = "taskbridge_clock" in request.fixturenames
    clock: VirtualClock | None = request.getfixturevalue("taskbridge_clock") if is_virtual else None
    with ExitStack() as stack:
        yield EmulatorFactory(clock, _taskbridge_configuration, stack)


class ScriptFactory:
    """Points connections to the scripted vendor of one test; the value of ``taskbridge_script``."""

    def __init__(self, vendor: ScriptedVendor, configuration: _Configuration) -> None:
        self._vendor = vendor
        self._configuration = configuration

    def __call__(self, *connections: str) -> ScriptedVendor:
        """Configure these connections, or one that is called ``scripted``, and return their vendor."""
        self._configuration.add({name: {"provider": "scripted"} for name in connections or ("scripted",)})
        return self._vendor


@pytest.fixture
def taskbridge_script(
    taskbridge_clock: VirtualClock, _taskbridge_configuration: _Configuration
) -> Iterator[ScriptFactory]:
    """Starts a scripted vendor in virtual time: ``taskbridge_script("invoices")``.

    The named connections point to it, unless the application names a configuration file.
    """
    from taskbridge._config.defaults import current_defaults  # noqa: PLC0415  # only if it is used
    from taskbridge.testing.scripted import ScriptedVendor  # noqa: PLC0415  # the same

    with ScriptedVendor(clock=taskbridge_clock, inner=current_defaults().transports) as vendor:
        yield ScriptFactory(vendor, _taskbridge_configuration)


@pytest.fixture
def taskbridge_recording(request: pytest.FixtureRequest) -> Iterator[RecordingTransport | ReplayTransport]:
    """The traffic of this test's clients, from ``recordings/MODULE/TEST.jsonl`` beside the test.

    A replay sends nothing and takes no time: it runs in virtual time that starts when the recording did.
    """
    from taskbridge._config.defaults import override_defaults  # noqa: PLC0415  # only if it is used
    from taskbridge.testing.recording import RecordingTransport, ReplayTransport  # noqa: PLC0415  # the same

    path = _recording_path(request)
    mode = request.config.getoption("--taskbridge-record")
    if mode == "record" or (mode == "auto" and not path.exists()):
        marker = request.node.get_closest_marker("taskbridge_recording")
        recording = RecordingTransport(path, allow=marker.kwargs.get("allow", ()) if marker is not None else ())
        with override_defaults(transports=recording):
            yield recording
        if recording.masked:
            request.config.stash.setdefault(_MASKED, {})[str(path)] = recording.masked
        return
    if not path.exists():
        pytest.fail(f"there is no recording {path}; record it with --taskbridge-record=auto", pytrace=False)
    replay = ReplayTransport(path)
    clock: VirtualClock = request.getfixturevalue("taskbridge_clock")
    if replay.began is not None:
        clock.step_wall((replay.began - clock.now()).total_seconds())
    with override_defaults(transports=replay):
        yield replay


def _recording_path(request: pytest.FixtureRequest) -> Path:
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in request.node.name)
    return request.path.parent / "recordings" / request.path.stem / f"{name}.jsonl"
