"""No redirect is followed: the other host gets no request, and nothing is sent twice."""

from __future__ import annotations

from typing import Any, Final

import pytest

from taskbridge.errors import UnexpectedRedirect

from .conftest import Place
from .polling import DRIVERS, Driver, get_task
from .server import FIN, READ, FaultServer, answer
from .vendors import CANARY, VENDORS

CODES: Final = (300, 301, 302, 303, 305, 306, 307, 308)
LOGINS: Final[dict[str, dict[str, Any]]] = {
    "smartdocumentor": {"client_id": "me", "client_secret": CANARY},
    "expertai-extract": {"username": "me", "password": CANARY},
}


def servers(places: dict[str, Place]) -> tuple[FaultServer, dict[str, str]]:
    """Where calls go, and where they are sent from there."""
    here, there, secure = (places[name].server for name in ("plain", "other", "tls"))
    assert here is not None
    assert there is not None
    assert secure is not None
    return here, {
        "another host": there.url,
        "another port": f"http://127.0.0.1:{there.port}",
        "another scheme": secure.url,
        "a relative place": f"//localhost:{there.port}",
        "a file": "file:///etc/hostname",
        "itself": here.url,
    }


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", VENDORS)
@pytest.mark.parametrize("code", CODES)
def test_get_follows_no_redirect(code: int, name: str, driver: Driver, places: dict[str, Place]) -> None:
    vendor = VENDORS[name]
    here, targets = servers(places)
    for target in targets.values():
        other_servers = [places[each].server for each in ("other", "tls")]
        plays = [
            other_server.play((READ, answer(200, vendor.completed), FIN))
            for other_server in other_servers
            if other_server
        ]
        play = here.play((READ, answer(code, b"", f"Location: {target}{vendor.target}"), FIN))
        seen = get_task(driver, vendor, here.url)
        assert type(seen) is UnexpectedRedirect
        assert seen.http_status == code
        assert (len(play.requests), [each.connections for each in plays]) == (1, [0, 0])


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", LOGINS)
@pytest.mark.parametrize("code", CODES)
def test_a_login_follows_no_redirect(code: int, name: str, driver: Driver, places: dict[str, Place]) -> None:
    vendor = VENDORS[name]
    here, targets = servers(places)
    other_server = places["other"].server
    assert other_server is not None
    elsewhere = other_server.play((READ, answer(200, b"{}"), FIN))
    play = here.play((READ, answer(code, b"", f"Location: {targets['another host']}/token"), FIN))
    seen = get_task(driver, vendor, here.url, token_url=f"{here.url}/token", **LOGINS[name], access_token=None)
    assert type(seen) is UnexpectedRedirect
    assert [each.method for each in play.requests] == ["POST"]
    assert CANARY.encode() in play.requests[0].body
    assert elsewhere.connections == 0
