"""What the emulated CloudConvert says about its operations and conversions, which are public (W6W).

Paths, filters, ``include`` and fields are those of the official Java client. The conversions are the ones of which the
documentation or a recording shows an engine; the emulator accepts every format that looks like one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from starlette.requests import Request

from taskbridge.emulator.helpers import JsonObject

from .emulator_responses import ApiResponse
from .emulator_validation import REQUIRED

FILTERS: Final = ("operation", "input_format", "output_format", "engine", "engine_version")


class Conversion(NamedTuple):
    """One conversion, by one version of an engine."""

    input_format: str
    output_format: str
    engine: str
    engine_version: str


CONVERSIONS: Final = (
    Conversion("docx", "pdf", "office", "2.1"),  # doc TASKS
    Conversion("jpg", "png", "imagemagick", "7.1.0"),  # NODE job_finished.json
)


def list_operations(request: Request, _body: JsonObject) -> ApiResponse:
    """``GET /v2/operations``."""
    others = (_entry(request, name, None) for name in REQUIRED if name != "convert")
    return _filtered(request, [*_conversions(request), *others])


def list_formats(request: Request, _body: JsonObject) -> ApiResponse:
    """``GET /v2/convert/formats``: the conversions."""
    return _filtered(request, [*_conversions(request)])


def _conversions(request: Request) -> Iterator[dict[str, Any]]:
    return (_entry(request, "convert", conversion) for conversion in CONVERSIONS)


def _entry(request: Request, operation: str, conversion: Conversion | None) -> dict[str, Any]:
    """One entry; only a conversion has formats and an engine (assumed)."""
    include = request.query_params.get("include", "").split(",")
    entry: dict[str, Any] = {
        "operation": operation,
        "input_format": conversion and conversion.input_format,
        "output_format": conversion and conversion.output_format,
        "engine": conversion and conversion.engine,
        "deprecated": False,
        "experimental": False,
        "meta": {},  # its keys are unknown
    }
    if "options" in include:  # only those that are required; types are assumed
        names = REQUIRED[operation]
        entry["options"] = [{"name": name, "type": "string", "default": None, "possible_values": []} for name in names]
    if "engine_versions" in include:
        flags = {"default": True, "latest": True, "deprecated": False, "experimental": False}
        entry["engine_versions"] = [{"version": conversion.engine_version, **flags}] if conversion else []
    return entry


def _filtered(request: Request, entries: list[dict[str, Any]]) -> ApiResponse:
    versions = {conversion.engine: conversion.engine_version for conversion in CONVERSIONS}

    def fits(entry: dict[str, Any]) -> bool:
        facts = {**entry, "engine_version": versions.get(entry["engine"])}
        return all(request.query_params.get(f"filter[{name}]") in {None, facts[name]} for name in FILTERS)

    return ApiResponse({"data": [entry for entry in entries if fits(entry)]})
