"""Kiln for taskbridge."""

from .provider import Kiln, KilnSettings

__all__ = ["Kiln", "KilnSettings"]
