"""A vendor that wants each request signed: `sign` gets it with its credential, just before it is sent."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from datetime import datetime

from starlette.requests import Request as HttpRequest

from taskbridge.provider import Request
from taskbridge.testing import ProviderConformance

from .plain import PlainEmulator, PlainProvider, refuse


class SigningProvider(PlainProvider):
    """Signs the time, the method and the URL."""

    def sign(self, request: Request, now: datetime) -> Request:
        time = f"{now.timestamp():.0f}"
        signed = f"{time} {request.method} {request.url.partition('?')[0]}".encode()
        digest = hmac.new(self.settings.api_key.get_secret_value().encode(), signed, hashlib.sha256).hexdigest()
        return replace(request, headers={**request.headers, "X-Time": time, "X-Signature": digest})


class SigningEmulator(PlainEmulator):
    """Refuses a request whose signature is missing or wrong."""

    def check(self, request: HttpRequest) -> None:
        super().check(request)
        time = request.headers.get("x-time", "0")
        signed = f"{time} {request.method} {str(request.url).partition('?')[0]}".encode()
        digest = hmac.new(self.key.encode(), signed, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(digest, request.headers.get("x-signature", "")):
            raise refuse(401, "the signature is wrong")


class TestSignedRequests(ProviderConformance):
    provider = SigningProvider
    emulator_class = SigningEmulator
