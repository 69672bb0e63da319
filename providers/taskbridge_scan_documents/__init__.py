"""Scan Documents for taskbridge."""

from .provider import ScanDocuments, ScanDocumentsSettings

__all__ = ["ScanDocuments", "ScanDocumentsSettings"]
