"""How times, amounts and third parties' words read on the page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

from markupsafe import Markup

from taskbridge.errors import printable

# Wherever it begins, also within a word; JSON may write its slashes as "\/". A scheme is short, so that the time to
# search does not grow with the square of the text.
_LINK: Final = re.compile(r"([a-z][a-z0-9+.-]{0,20}:(?:\\?/){2})[^\s\"'<>]+", re.IGNORECASE)
_LONGEST: Final = 1000  # characters
_LONGEST_META: Final = 300  # characters


def safe(value: object) -> object:
    """Make a text safe to show, before it is escaped: a link may give access to a document, so its host is enough.

    Markup is left as it is: that of the page's own templates.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return printable(_LINK.sub(_host_only, value), _LONGEST)


def _host_only(found: re.Match[str]) -> str:
    try:
        host = urlsplit(found[0].replace("\\/", "/")).hostname
    except ValueError:
        host = None
    return f"{found[1]}{host or ''}/…"


def meta_text(meta: Mapping[str, Any] | None) -> str:
    """Show the caller's own data, as short JSON."""
    if not meta:
        return ""
    text = json.dumps(meta, ensure_ascii=False)
    return text if len(text) <= _LONGEST_META else f"{text[:_LONGEST_META]}…"


def time_text(at: datetime | None, now: datetime) -> str:
    """Show a time in UTC, to the second; one of the same day as `now` without the date."""
    if at is None:
        return ""
    shown = at.astimezone(UTC)
    return f"{shown:%H:%M:%S}" if shown.date() == now.astimezone(UTC).date() else f"{shown:%Y-%m-%d %H:%M:%S}"


def age_text(seconds: float) -> str:
    """Show how long ago something was; it changes at most once a minute, so that the page stays calm."""
    minutes = int(max(0.0, seconds) // 60)
    if minutes < 1:
        return "under 1 min"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def duration_text(seconds: float) -> str:
    """Show a duration: ``0.4 s``, ``12 s``, ``3.5 min``, ``2.1 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def number_text(value: float) -> str:
    """Show a number, never with an exponent: to two decimals, or below 1 with at most three digits."""
    if abs(value) < 1:
        return f"{Decimal(f'{value:.3g}'):f}"
    return f"{value:,.2f}".rstrip("0").rstrip(".")
