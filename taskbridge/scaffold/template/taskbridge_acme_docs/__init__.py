"""Acme Docs for taskbridge."""

from .provider import AcmeDocs, AcmeDocsSettings

__all__ = ["AcmeDocs", "AcmeDocsSettings"]
