"""CloudConvert for taskbridge."""

from .provider import CloudConvert, CloudConvertSettings

__all__ = ["CloudConvert", "CloudConvertSettings"]
