"""Zamzar for taskbridge."""

from .provider import Zamzar, ZamzarSettings

__all__ = ["Zamzar", "ZamzarSettings"]
