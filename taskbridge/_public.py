"""Every name of ``taskbridge.*``, written once; `taskbridge` loads this module when the first of them is used."""

# A name that is imported as itself is exported: https://typing.python.org/en/latest/spec/distributing.html
# ruff: noqa: PLC0414

import typing as _typing

from taskbridge import errors as errors
from taskbridge._config.registry import ProviderInfo as ProviderInfo
from taskbridge._config.registry import providers as providers
from taskbridge._engine.connection import ConnectionStats as ConnectionStats
from taskbridge._engine.operations import CheckResult as CheckResult
from taskbridge._engine.webhooks import Ingested as Ingested
from taskbridge.client import Bridge as Bridge
from taskbridge.client import Client as Client
from taskbridge.client import Watch as Watch
from taskbridge.client import connect as connect
from taskbridge.errors import *  # noqa: F403  # their `__all__` names them
from taskbridge.event_bus import EventBus as EventBus
from taskbridge.event_bus import MemoryEventBus as MemoryEventBus
from taskbridge.events import *  # noqa: F403  # their `__all__` names them
from taskbridge.models import *  # noqa: F403  # their `__all__` names them
from taskbridge.provider.capabilities import Capabilities as Capabilities
from taskbridge.provider.options import NeutralOptions as NeutralOptions
from taskbridge.provider.policy import PollPolicy as PollPolicy
from taskbridge.provider.policy import RetryPolicy as RetryPolicy

if _typing.TYPE_CHECKING:  # loaded when it is used: a synchronous program does without asyncio
    from taskbridge import aio as aio
