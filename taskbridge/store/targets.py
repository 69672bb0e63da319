"""Where `taskbridge serve --deliver` sends events: standard output, an HTTPS server, or Celery."""

from __future__ import annotations

import os
import sys
import threading
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from hmac import digest
from json import dumps
from typing import Any, Final, Protocol, TextIO
from urllib.parse import urlsplit

from taskbridge import __version__
from taskbridge._config.connections import url_problem
from taskbridge._config.network import network_of
from taskbridge._config.settings import CommonSettings
from taskbridge._transport.choice import make_transport
from taskbridge.errors import ConfigError, ServerError, TaskbridgeError, TransportError, printable
from taskbridge.provider.clock import Clock, SystemClock
from taskbridge.provider.http import Request
from taskbridge.provider.signatures import SVIX_PREFIX
from taskbridge.store.records import Event

SECRET_VARIABLE: Final = "TASKBRIDGE_DELIVER_SECRET"
"""Environment variable of the secret that signs what is sent to an HTTPS server."""

_TIMEOUT: Final = 15.0  # seconds for one request
_LARGEST_ANSWER: Final = 65_536  # bytes; it is not used
