"""Docling Serve for taskbridge."""

from .provider import Docling, DoclingSettings

__all__ = ["Docling", "DoclingSettings"]
