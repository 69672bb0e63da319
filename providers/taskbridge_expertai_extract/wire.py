"""expert.ai's formats: words of a page, text of a layout, expiry of a token (extract-python 0.1.2, read 2026-11-22).

The words of a page are base64 of gzip of one record per word: UTF-8 text, a zero byte, the id of its layout element and
the four numbers of its box, all little-endian and 32 bits wide. The vendor's README skips four more bytes between two
words; its only sample has one word, so nothing confirms that.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, urlsafe_b64decode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from struct import Struct
from struct import error as StructError  # noqa: N812  # an exception, whatever its name
from typing import Final

from taskbridge.errors import MalformedResponse, printable
from taskbridge.provider import NO_TIME, Payload, Response, clip_seconds, read_json

MAX_PAGE: Final = 16 << 20  # decompressed bytes of one page; a dense one has about 100 kB
GAP: Final = 4  # bytes between two words
RECORD: Final = Struct("<5I")
GZIP: Final = 31  # zlib's window bits for gzip only
RAW_LIMIT: Final = 2048  # characters of a page kept in an error


@dataclass(frozen=True, slots=True)
class Word:
    """A word on a page.

    Attributes:
        text: The word.
        element: `id` of the layout element that contains it.
        box: Left, top, right and bottom edge in pixels at 100 DPI, from the top left.
    """

    text: str
    element: int
    box: tuple[int, int, int, int]


def decode_words(page: str) -> list[Word]:
    """Decode one entry of a result's ``words``.

    Args:
        page: The vendor's text for one page.

    Raises:
        MalformedResponse: The text cannot be decoded, or is larger than 16 MiB unpacked.
    """
    data = _unpack(page)
    words: list[Word] = []
    position, end = 0, len(data)
    while position < end:
        try:
            stop = data.index(0, position)
            element, left, top, right, bottom = RECORD.unpack_from(data, stop + 1)
            words.append(Word(data[position:stop].decode(), element, (left, top, right, bottom)))
        except (ValueError, StructError):  # no zero byte, not UTF-8, or truncated numbers
            raise MalformedResponse(
                f"word {len(words) + 1} of the page cannot be read", raw=printable(page, RAW_LIMIT)
            ) from None
        position = stop + 1 + RECORD.size
        position += GAP if position < end else 0
    if position > end:
        raise MalformedResponse(f"the page is truncated after word {len(words)}", raw=printable(page, RAW_LIMIT))
    return words


def _unpack(page: str) -> bytes:
    unpacker = zlib.decompressobj(GZIP)
    try:
        data = unpacker.decompress(b64decode(page, validate=True), MAX_PAGE)
    except (ValueError, zlib.error):
        raise MalformedResponse("the page is not base64 of gzip", raw=printable(page, RAW_LIMIT)) from None
    if unpacker.unconsumed_tail:
        raise MalformedResponse(f"the page unpacks to more than {MAX_PAGE} bytes", raw=printable(page, RAW_LIMIT))
    if not unpacker.eof or unpacker.unused_data:
        raise MalformedResponse("the page is truncated, or has data after its end", raw=printable(page, RAW_LIMIT))
    return data


def layout_text(result: object) -> str | None:
    """Return the content of a result's layout items without children, in order, one per line; None without a layout."""
    payload = Payload.of(result, "", NO_TIME) if isinstance(result, dict) else None
    if payload is None or not isinstance(payload.raw.get("layout"), list):
        return None
    leaves = (item.maybe_text("content") for item in payload.children("layout") if not item.raw.get("children"))
    return "\n".join(text.rstrip("\n") for text in leaves if text is not None)


def token_expiry(token: str, response: Response | None = None) -> datetime | None:
    """Return when a JSON Web Token expires (aware UTC), or None if it does not say or is not a JSON Web Token.

    Args:
        token: The token.
        response: The response that issued it, which tells how the vendor's clock differs from this computer's; None if
            there is none.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = read_json(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        payload = Payload.of(claims, "", NO_TIME)
        expiry, issued = payload.maybe_number("exp"), payload.maybe_number("iat")
        if expiry is None:
            return None
        if response is not None and issued is not None:
            return response.received_at + timedelta(seconds=clip_seconds(max(expiry - issued, 0.0)))
        skew = 0.0 if response is None else response.skew or 0.0
        return datetime.fromtimestamp(expiry + skew, UTC)
    except (MalformedResponse, ValueError, OverflowError, OSError):
        return None
