"""The operations that a vendor lists."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

import taskbridge as tb
from taskbridge.provider.http import Response
from taskbridge.testing import Emulator

from .conftest import Both, Scripted


def test_all_operations_are_listed_without_their_options(both: Callable[..., Both], own_vendors: Emulator) -> None:
    found = both("cloudconvert").operations()
    assert {"convert", "import/url", "export/url", "pdf/merge"} <= {each.name for each in found}
    assert not any(each.options for each in found)
    assert own_vendors.count("cloudconvert", "GET", "/v2/operations") == 1


def test_formats_narrow_the_list_to_conversions(both: Callable[..., Both], own_vendors: Emulator) -> None:
    (found,) = both("cloudconvert").operations(input_format="docx", output_format="pdf")
    assert (found.name, found.input_format, found.output_format, found.engine) == ("convert", "docx", "pdf", "office")
    assert "output_format" in {option.name for option in found.options}
    assert own_vendors.count("cloudconvert", "GET", "/v2/convert/formats") == 1
    assert both("cloudconvert").operations(input_format="docx", output_format="mp3") == ()


def test_options_are_verbatim(scripted: Callable[..., Scripted]) -> None:
    quality = {"name": "quality", "type": "integer", "default": 75, "possible_values": None}
    fit = {"name": "fit", "type": "enum", "default": "max", "possible_values": ["max", "crop"]}
    entry = {"operation": "thumbnail", "deprecated": True, "experimental": "no", "options": [quality, fit]}
    client = scripted("cloudconvert", Response(200, {}, json.dumps({"data": [entry]}).encode())).client
    (found,) = client.operations("thumbnail")
    assert found.options == (
        tb.OperationOption(name="quality", type="integer", default=75),
        tb.OperationOption(name="fit", type="enum", default="max", choices=("max", "crop")),
    )
    assert (found.deprecated, found.experimental, found.engine) == (True, False, None)
    assert tb.OperationInfo.from_dict(found.to_dict()) == found


@pytest.mark.parametrize("provider", ["scan-documents", "smartdocumentor", "expertai-extract"])
def test_other_vendors_list_none(both: Callable[..., Both], own_vendors: Emulator, provider: str) -> None:
    with pytest.raises(tb.UnsupportedFeature, match="list its operations"):
        both(provider).operations()
    assert own_vendors.count(provider) == 0
