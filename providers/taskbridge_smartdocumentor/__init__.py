"""SmartDocumentor for taskbridge."""

from .provider import SmartDocumentor, SmartDocumentorSettings

__all__ = ["SmartDocumentor", "SmartDocumentorSettings"]
