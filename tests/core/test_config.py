"""Configuration: where values come from, what overrides what, and that no message ever shows a value."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, field_validator

import taskbridge as tb
from taskbridge import aio
from taskbridge._config.connections import connection_settings
from taskbridge._config.files import Config, ConnectionConfig, find_config, load_config, read_config
from taskbridge._config.network import network_of
from taskbridge._config.registry import load_builtin_providers
from taskbridge._config.settings import CommonSettings

PROVIDERS = load_builtin_providers()
KEY = "sk-live-0123456789abcdef"
CANARY = "canary-5d1f0c"
FILE = """
default = "invoices"

[connections.invoices]
provider = "cloudconvert"
api_key = "${CC_KEY}"
[connections.invoices.poll]
latency = 2.0

[connections.scan-2]
provider = "scan-documents"
api_key = "sk-live-0123456789abcdef"
"""


def connection(provider: str = "cloudconvert", **values: Any) -> ConnectionConfig:
    return ConnectionConfig("invoices", provider, {"api_key": KEY, **values}, {})


def checked(each: ConnectionConfig) -> tuple[CommonSettings, Any]:
    return connection_settings(each, PROVIDERS[each.provider], PROVIDERS)


def refused(values: Mapping[str, Any], provider: str = "cloudconvert") -> str:
    with pytest.raises(tb.ConfigError) as caught:
        checked(connection(provider, **values))
    return str(caught.value)


def faulty(text: str, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(tb.ConfigError) as caught:
        read_config(text, environ=environ or {})
    return str(caught.value)


# Where it is found.


def test_a_given_path_takes_precedence_over_the_environment(tmp_path: Path) -> None:
    given, named = tmp_path / "given.toml", tmp_path / "named.toml"
    for path in (given, named):
        path.write_text("")
    environ = {"TASKBRIDGE_CONFIG": str(named)}
    assert find_config(given, environ) == given
    assert find_config(None, environ) == named


def test_the_working_folder_takes_precedence_over_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    users = home / "taskbridge" / "taskbridge.toml"
    users.parent.mkdir(parents=True)
    users.write_text("")
    assert find_config(None, {}) == users
    (tmp_path / "taskbridge.toml").write_text("")
    assert find_config(None, {}).absolute() == tmp_path / "taskbridge.toml"


def test_without_a_file_the_message_lists_the_places_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tb.ConfigError, match="TASKBRIDGE_CONFIG") as caught:
        find_config(None, {})
    assert str(tmp_path / "taskbridge.toml") in str(caught.value)
    assert 'connect("cloudconvert", api_key=…)' in str(caught.value)


def test_a_missing_named_file_is_not_replaced_by_another(tmp_path: Path) -> None:
    for path, kind in ((tmp_path / "no.toml", "does not exist"), (tmp_path, "is a directory")):
        with pytest.raises(tb.ConfigError, match=kind):
            find_config(path, {})
        with pytest.raises(tb.ConfigError, match="TASKBRIDGE_CONFIG"):
            find_config(None, {"TASKBRIDGE_CONFIG": str(path)})


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "taskbridge.toml"
    path.write_bytes(b'a = "\xff"')
    with pytest.raises(tb.ConfigError, match="cannot be read"):
        load_config(path, {})


# What is in it.


def test_a_file_names_connections_and_the_default_one() -> None:
    config = read_config(FILE, environ={"CC_KEY": KEY})
    assert (list(config.connections), config.default) == (["invoices", "scan-2"], "invoices")
    assert config.connection().provider == "cloudconvert"
    assert config.connection("scan-2").provider == "scan-documents"
    assert config.connection().values["api_key"] == KEY


def test_only_a_single_connection_needs_no_default() -> None:
    one = ConnectionConfig("a", "cloudconvert", {}, {})
    assert Config(None, {"a": one}).connection() is one
    with pytest.raises(tb.ConfigError, match=r"name a connection.*there are a, b"):
        Config(None, {"a": one, "b": one}).connection()


def test_an_unknown_connection_gets_the_nearest_name() -> None:
    with pytest.raises(tb.ConfigError, match="did you mean 'invoices'"):
        read_config(FILE, environ={"CC_KEY": KEY}).connection("invoice")


def test_the_same_settings_come_from_the_file_and_from_keywords() -> None:
    from_file = read_config(FILE, environ={"CC_KEY": KEY}).connection()
    ours, theirs = checked(from_file)
    again, own = checked(connection(poll={"latency": 2.0}))
    assert (ours, theirs) == (again, own)
    assert ours.poll.latency == 2.0
    assert theirs.api_key.get_secret_value() == KEY


# Overrides and origins.


def test_the_environment_overrides_a_value_and_a_value_in_a_table() -> None:
    environ = {
        "CC_KEY": KEY,
        "TASKBRIDGE_INVOICES__POLL__LATENCY": "0.5",
        "TASKBRIDGE_INVOICES__RETRY__ATTEMPTS": "5",
        "TASKBRIDGE_INVOICES__SANDBOX": "true",
        "TASKBRIDGE_SCAN_2__API_KEY": "1234567890",
    }
    config = read_config(FILE, environ=environ)
    ours, theirs = checked(config.connection())
    assert (ours.poll.latency, ours.retry.attempts, theirs.sandbox) == (0.5, 5, True)
    _, scan = checked(config.connection("scan-2"))
    assert scan.api_key.get_secret_value() == "1234567890"


def test_the_environment_may_name_the_provider() -> None:
    config = read_config(FILE, environ={"CC_KEY": KEY, "TASKBRIDGE_INVOICES__PROVIDER": "scan-documents"})
    assert config.connection().provider == "scan-documents"


def test_an_override_of_another_connection_changes_nothing() -> None:
    config = read_config(FILE, environ={"CC_KEY": KEY, "TASKBRIDGE_INVOICES2__API_KEY": "x", "TASKBRIDGE_": "y"})
    assert config.connection().values["api_key"] == KEY


def test_each_value_knows_where_it_came_from() -> None:
    path = Path("environment.toml")
    environ = {"CC_KEY": KEY, "TASKBRIDGE_INVOICES__POLL__INTERVAL": "1"}
    origins = read_config(FILE, path=path, environ=environ).connection().origins
    assert origins["api_key"] == "environment variable CC_KEY (named in environment.toml)"
    assert origins["poll.latency"] == "environment.toml"
    assert origins["poll.interval"] == "environment variable TASKBRIDGE_INVOICES__POLL__INTERVAL"


def test_an_error_says_where_the_value_came_from() -> None:
    environ = {"CC_KEY": KEY, "TASKBRIDGE_INVOICES__MAX_IN_FLIGHT": "0"}
    with pytest.raises(tb.ConfigError, match=r"max_in_flight \(from environment variable TASKBRIDGE_INVOICES__MAX_IN"):
        checked(read_config(FILE, environ=environ).connection())


def test_a_variable_that_is_not_set_is_named_with_the_key() -> None:
    for environ in ({}, {"CC_KEY": ""}):
        with pytest.raises(tb.ConfigError) as caught:
            checked(read_config(FILE, environ=environ).connection())
        assert "connections.invoices.api_key" in str(caught.value)
        assert "CC_KEY, which is not set" in str(caught.value)


def test_a_variable_that_only_another_connection_needs_may_be_missing() -> None:
    text = FILE + '[connections.other]\nprovider = "cloudconvert"\napi_key = "${OTHER_KEY}"\n'
    config = read_config(text, environ={"CC_KEY": KEY})
    checked(config.connection("invoices"))
    with pytest.raises(tb.ConfigError, match=r"connections\.other\.api_key .* OTHER_KEY, which is not set"):
        checked(config.connection("other"))


def test_a_keyword_replaces_a_variable_that_is_not_set(tmp_path: Path) -> None:
    path = tmp_path / "taskbridge.toml"
    path.write_text(FILE)
    with tb.connect(connection="invoices", config=path, api_key=KEY) as client:
        assert client.name == "invoices"


def test_the_provider_itself_needs_its_variable() -> None:
    assert "connections.a.provider" in faulty('[connections.a]\nprovider = "${NOWHERE}"\n')


def test_variables_are_filled_in_within_texts_lists_and_tables() -> None:
    text = """
[connections.a]
provider = "cloudconvert"
api_key = "${KEY}"
base_url = "https://${HOST}/v2"
webhook_secrets = ["${OLD}", "${NEW}"]
[connections.a.submit]
operation = "${OP}"
"""
    environ = {"KEY": KEY, "HOST": "acme.test", "OLD": "old-secret", "NEW": "new-${KEY}", "OP": "convert"}
    values = read_config(text, environ=environ).connections["a"].values
    assert values["base_url"] == "https://acme.test/v2"
    assert values["webhook_secrets"] == ["old-secret", "new-${KEY}"]  # what a variable holds is not read again
    assert values["submit"] == {"operation": "convert"}


# Faults of the file.


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("default = ]", "no valid TOML (at line 1"),
        ('a = "b"', "unknown key 'a'; known are connections, default"),
        ('[conections.a]\nprovider = "x"', "did you mean 'connections'?"),
        ("connections = 3", "connections must be tables"),
        ("[connections]\na = 3", "connections.a must be a table"),
        ('[connections."In voices"]\nprovider = "x"', "lower-case letters, digits and dashes"),
        ('[connections.a]\napi_key = "k"', "names no provider"),
        ("[connections.a]\nprovider = 3", "names no provider"),
        ('default = "b"\n[connections.a]\nprovider = "cloudconvert"', "default must name one of the connections: a"),
        ("default = 3\n[connections.a]\nprovider = 'cloudconvert'", "default must name"),
        ("a" + ".a" * 5000 + " = 1", "deep"),
        ("[connections.a]\nprovider = 'x'\nretry = " + "[" * 5000 + "]" * 5000, "deep"),
        ("[connections.a]\nprovider = 'x'\nn = " + "9" * 5000, "too long"),
        ("[connections.a]\nprovider = 'x'\n[connections.a]\nprovider = 'y'", "no valid TOML"),
    ],
    ids=lambda text: text[:24],
)
def test_a_config_error_names_the_place_and_the_rule(text: str, words: str) -> None:
    assert words in faulty(text)


@pytest.mark.parametrize(
    "text",
    [
        f"[connections.a]\nprovider = 'cloudconvert'\napi_key = {CANARY}",
        f"[connections.a]\nprovider = 'cloudconvert'\napi_key = '{CANARY}",
        f"[connections.a]\nprovider = 'cloudconvert'\napi_kye = '{CANARY}'",
        f"[connections.a]\napi_key = '{CANARY}'",
        f"default = '{CANARY}'\n[connections.a]\nprovider = 'cloudconvert'",
        f"[connections.a]\nprovider = 'cloudconvert'\nstrict = '{CANARY}'\napi_key = 'k'",
        f"[connections.a]\nprovider = 'cloudconvert'\nretry = '{CANARY}'\napi_key = 'k'",
        f"[connections.a]\nprovider = 'cloudconvert'\nretry = {{attempts = '{CANARY}'}}\napi_key = 'k'",
        f"[connections.a]\nprovider = 'cloudconvert'\nretry = {{atempts = '{CANARY}'}}\napi_key = 'k'",
        f"[connections.a]\nprovider = 'cloudconvert'\nregion = '{CANARY}'\napi_key = 'k'",
        f"[connections.a]\nprovider = 'cloudconvert'\nbase_url = 'http://{CANARY}/'\napi_key = 'k'",
        f"[connections.a]\nprovider = 'cloudconvert'\nbase_url = 'https://user:{CANARY}@h/'\napi_key = 'k'",
        f"[connections.a]\nprovider = 'cloudconvert'\napi_key = ['{CANARY}']",
        f"[connections.a]\nprovider = 'cloudconvert'\napi_key = \"x\\n{CANARY}\"",
        f"[connections.a]\nprovider = 'cloudconvert'\nproxy = '{CANARY}\u2026'\napi_key = 'k'",
        f"[connections.a]\nprovider = 'cloudconvert'\nwebhook_secrets = ['{CANARY} ']\napi_key = 'k'",
        f"[connections.a]\nprovider = 'cloudconvert'\nwebhook_secrets = '{CANARY}'\napi_key = 'k'",
        f"[connections.a]\nprovider = 'smartdocumentor'\nclient_secret = '{CANARY}'",
        f"[connections.a]\nprovider = 'smartdocumentor'\napi_key = '{CANARY}'",
        f"[connections.a]\nprovider = 'scan-documents'\napi_key = '{CANARY}'\nusername = '{CANARY}'",
        f"[connections.a]\nprovider = 'expertai-extract'\nusername = 'u'\npassword = '{CANARY}'\naccess_token = '{CANARY}'",  # noqa: E501  # one row
        f"connections = '{CANARY}'",
        f"[connections]\na = '{CANARY}'",
    ],
)
def test_no_config_error_shows_a_value(text: str) -> None:
    with pytest.raises(tb.TaskbridgeError) as caught:
        checked(read_config(text, environ={}).connections["a"])
    shown: list[str] = []
    error: BaseException | None = caught.value
    while error is not None:
        shown += [str(error), repr(error), repr(error.args)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    shown.append(repr(vars(caught.value)))
    assert CANARY not in "".join(shown)


@given(st.text(max_size=80))
def test_any_text_is_a_configuration_or_a_config_error(text: str) -> None:
    try:
        read_config(text, environ={})
    except tb.ConfigError:
        return


# Settings.


def test_an_unknown_setting_gets_the_nearest_name() -> None:
    assert "unknown setting 'api_kye'; did you mean 'api_key'?" in refused({"api_kye": "k"})


def test_an_unknown_setting_in_a_table_gets_the_nearest_name() -> None:
    assert "did you mean 'interval'" in refused({"poll": {"intervall": 1.0}})


def test_a_setting_of_another_provider_says_whose_it_is() -> None:
    message = refused({"client_id": "x"})
    assert "client_id is a setting of smartdocumentor, not of cloudconvert, which takes api_key" in message


def test_a_missing_setting_says_what_to_write() -> None:
    with pytest.raises(
        tb.ConfigError, match=r"missing; set the environment variable CLOUDCONVERT_API_KEY, add api_key = "
    ):
        checked(ConnectionConfig("a", "cloudconvert", {}, {}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"request_timeout": 0}, "request_timeout: Input should be greater than 0"),
        ({"request_timeout": -1.0}, "request_timeout"),
        ({"request_timeout": 1e9}, "less than or equal to 86400"),
        ({"request_timeout": float("nan")}, "request_timeout"),
        ({"request_timeout": float("inf")}, "request_timeout"),
        ({"request_timeout": "30"}, "valid number"),
        ({"request_timeout": True}, "valid number"),
        ({"retry": {"attempts": 0}}, "retry.attempts"),
        ({"retry": {"attempts": 11}}, "less than or equal to 10"),
        ({"retry": {"attempts": True}}, "valid integer"),
        ({"retry": {"attempts": "3"}}, "valid integer"),
        ({"retry": {"first": -0.1}}, "retry.first"),
        ({"poll": {"interval": 0}}, "poll.interval"),
        ({"poll": {"interval": float("inf")}}, "poll.interval"),
        ({"requests_per_second": 0}, "requests_per_second"),
        ({"requests_per_second": 1e9}, "requests_per_second"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"max_in_flight": 1001}, "max_in_flight"),
        ({"max_body": 10}, "max_body"),
        ({"strict": 1}, "strict"),
        ({"strict": "yes"}, "strict"),
    ],
    ids=str,
)
def test_a_number_out_of_range_names_its_range(values: dict[str, Any], words: str) -> None:
    assert words in refused(values)


def test_a_poll_takes_a_delay_or_an_interval() -> None:
    assert "not both" in refused({"poll": {"latency": 1.0, "interval": 1.0}})


# Secrets.


def test_the_trailing_newline_of_a_mounted_file_is_removed() -> None:
    assert checked(connection(api_key=f"{KEY}\r\n"))[1].api_key.get_secret_value() == KEY


def test_a_secret_may_be_text_or_a_secret_str() -> None:
    assert checked(connection(api_key=SecretStr(KEY))) == checked(connection(api_key=KEY))


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("changeme", "placeholder"),
        ("CHANGEME", "placeholder"),
        ("${API_KEY}", "placeholder"),
        ("<your key>", "placeholder"),
        ("sk-live…", "outside ASCII"),
        ("\u201csk-live\u201d", "outside ASCII"),
        ("sk\nlive", "control character"),
        ("sk\x00live", "control character"),
        (" sk-live", "space at an end"),
        (7, "must be a text"),
        (None, "must be a text"),
    ],
)
def test_an_invalid_secret_is_refused(secret: object, words: str) -> None:
    message = refused({"api_key": secret})
    assert "api_key" in message
    assert words in message


def test_settings_show_and_pickle_no_secret() -> None:
    ours, theirs = checked(connection(webhook_secrets=["whsec_0123456789"], proxy="http://u:pw-of-proxy@proxy.test"))
    for settings in (ours, theirs):
        assert KEY not in repr(settings)
        assert "0123456789" not in repr(settings)
        assert "pw-of-proxy" not in repr(settings)
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(settings)
    assert KEY not in repr(connection())


# Addresses.


@pytest.mark.parametrize(
    "url",
    [
        "https://api.acme.test/v2",
        "http://127.0.0.1:8080/v2",
        "http://localhost/v2",
        "http://[::1]:8080",
        "http://127.9.9.9/",
    ],
)
def test_https_and_this_machine_are_allowed(url: str) -> None:
    assert checked(connection(base_url=url))[1].base_url == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://api.acme.test/v2", "plain http"),
        ("http://127.0.0.1.evil.test/", "plain http"),
        ("http://localhost.evil.test/", "plain http"),
        ("http://10.0.0.1/", "plain http"),
        ("ftp://api.acme.test/", "must be an https:// URL"),
        ("api.acme.test", "must be an https:// URL"),
        ("", "must be an https:// URL"),
        ("https://", "must be an https:// URL"),
        ("https://api.acme.test:port/", "no URL"),
        ("https://[::1/", "no URL"),
        ("https://u:p@api.acme.test/", "no user, password"),
        ("https://api.acme.test/?key=1", "query"),
        ("https://api.acme.test/#x", "fragment"),
        ("https://good\\@evil.test/", "https:// URL"),
        ("https://api.äcme.test/", "https:// URL"),
        ("https://api.acme.test/\n", "https:// URL"),
    ],
)
def test_an_unsafe_url_is_refused(url: str, words: str) -> None:
    assert words in refused({"base_url": url})


def test_plain_http_can_be_allowed_on_purpose() -> None:
    settings = connection(base_url="http://gateway.internal/v2", allow_http=True)
    assert checked(settings)[1].base_url == "http://gateway.internal/v2"


# The network.


def network(environ: Mapping[str, str], **values: Any) -> Any:
    return network_of(checked(connection(**values))[0], environ)


def test_the_environments_proxy_counts_only_if_none_is_set() -> None:
    environ = {"HTTPS_PROXY": "http://theirs.test:3128", "NO_PROXY": "internal.test"}
    assert network(environ).proxy_for("https", "api.acme.test") == "http://theirs.test:3128"
    assert network(environ).proxy_for("https", "internal.test") is None
    assert network(environ).proxy_for("https", "127.0.0.1") is None
    assert network(environ, proxy="http://ours.test").proxy_for("https", "api.acme.test") == "http://ours.test"


DIRECT: Final = (
    ("*", "https://api.acme.test", True),
    ("acme.test", "https://acme.test", True),
    ("acme.test", "https://api.acme.test", True),
    ("acme.test", "https://notacme.test", False),
    (".acme.test", "https://api.acme.test", True),
    ("*.acme.test", "https://api.acme.test", True),
    ("*.acme.test", "https://acme.other", False),
    ("ACME.test", "https://Api.acme.TEST", True),
    ("acme.test:8443", "https://acme.test:8443", True),
    ("acme.test:8443", "https://acme.test", False),
    ("acme.test:443", "https://acme.test", True),
    ("10.0.0.0/8", "http://10.1.2.3", True),
    ("10.0.0.0/8", "http://11.1.2.3", False),
    ("192.168.1.7", "http://192.168.1.7:8080", True),
    ("192.168.1.7:80", "http://192.168.1.7:8080", False),
    ("fd00::/8", "http://[fd12::1]", True),
    ("[fd12::1]", "http://[fd12::1]:8080", True),
    ("[fd12::1]:8080", "http://[fd12::1]:8080", True),
    ("[fd12::1]:8080", "http://[fd12::1]", False),
    ("nonsense/99,[,::::,", "https://api.acme.test", False),
    ("other.test, acme.test", "https://acme.test", True),
)


@pytest.mark.parametrize(("patterns", "url", "is_direct"), DIRECT)
def test_hosts_of_no_proxy_are_reached_directly(patterns: str, url: str, is_direct: bool) -> None:
    found = network({"HTTPS_PROXY": "proxy.test:3128", "HTTP_PROXY": "proxy.test:3128", "NO_PROXY": patterns})
    parts = urlsplit(url)
    proxy = found.proxy_for(parts.scheme, parts.hostname or "", parts.port)
    assert proxy == (None if is_direct else "http://proxy.test:3128")  # without a scheme it is an http proxy


@pytest.mark.parametrize("proxy", ["ftp://proxy.test", "http://", "http://proxy.test:99999", "http://[::1"])
def test_an_unusable_proxy_is_refused_where_it_is_set(proxy: str) -> None:
    with pytest.raises(tb.ConfigError, match=r"^HTTPS_PROXY is no URL of a proxy"):
        network({"HTTPS_PROXY": proxy})
    with pytest.raises(tb.ConfigError, match=r"^proxy is no URL of a proxy"):
        network({}, proxy=proxy)


def test_a_socks_proxy_needs_libcurl() -> None:
    settings: dict[str, Any] = {"api_key": "key-of-a-test", "proxy": "socks5://127.0.0.1:1080"}
    with pytest.raises(tb.ConfigError, match="SOCKS proxy needs libcurl"):
        tb.connect("scan-documents", **settings, transport="requests")
    with tb.connect("scan-documents", **settings) as client:
        assert client.stats()["scan-documents"].transport == ""


def test_the_environments_certificates_count_only_if_none_are_set(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.pem", tmp_path / "theirs.pem"
    for path in (ours, theirs):
        path.write_text("")
    environ = {"REQUESTS_CA_BUNDLE": str(theirs)}
    assert network(environ).ca_bundle == str(theirs)
    assert network(environ, ca_bundle=str(ours)).ca_bundle == str(ours)
    with pytest.raises(tb.ConfigError, match="does not exist"):
        network({}, ca_bundle=str(tmp_path / "no.pem"))


def test_a_proxy_password_is_hidden_from_repr() -> None:
    assert "hush" not in repr(network({"HTTPS_PROXY": "http://u:hush@proxy.test"}))


# From connect.


def test_connect_takes_a_provider_or_a_connection_and_not_both(tmp_path: Path) -> None:
    with pytest.raises(tb.ConfigError, match="not both"):
        tb.connect("cloudconvert", connection="invoices")
    with pytest.raises(tb.ConfigError, match="not both"):
        tb.connect("cloudconvert", config=tmp_path)


def test_keywords_of_connect_take_precedence_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC_KEY", KEY)
    path = tmp_path / "t.toml"
    path.write_text(FILE)
    with pytest.raises(tb.ConfigError, match=r"max_in_flight \(from connect\(\)\)"):
        tb.connect(connection="invoices", config=path, max_in_flight=0)
    with tb.connect(config=path, strict=True) as client:
        assert (client.name, client.provider) == ("invoices", "cloudconvert")


def test_a_bridge_opens_every_connection_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC_KEY", KEY)
    path = tmp_path / "t.toml"
    path.write_text(FILE)
    with tb.Bridge.from_config(path) as bridge:
        assert bridge.connections == ("invoices", "scan-2")
        assert bridge["scan-2"].provider == "scan-documents"
        with pytest.raises(tb.ConfigError, match="there is no connection 'nope'; there are invoices, scan-2"):
            bridge["nope"]


def test_an_empty_configuration_opens_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text("")
    with pytest.raises(tb.ConfigError, match="has no connections"):
        tb.Bridge.from_config(path)


# A credential in the wrong place.


@pytest.mark.parametrize("key", ["provider", "ca_bundle", "base_url"])
def test_a_credential_in_the_wrong_place_is_not_shown(key: str, tmp_path: Path) -> None:
    path = tmp_path / "taskbridge.toml"
    values = {"provider": "cloudconvert", "api_key": "some-key-0123", key: KEY}
    lines = [f'{name} = "{value}"' for name, value in values.items()]
    path.write_text("\n".join(["[connections.invoices]", *lines]))
    for open_it in (
        lambda: tb.connect(connection="invoices", config=path),
        lambda: tb.Bridge.from_config(path),
        lambda: aio.connect(connection="invoices", config=path),
        lambda: aio.Bridge.from_config(path),
    ):
        with pytest.raises((tb.ConfigError, tb.ProviderNotFound)) as caught:
            open_it()
        assert "invoices" in str(caught.value)
        assert KEY not in f"{caught.value} {caught.value.__dict__}"


def test_a_near_miss_of_a_providers_name_gets_the_name() -> None:
    with pytest.raises(tb.ProviderNotFound, match="did you mean 'cloudconvert'"):
        tb.connect("cloud-convert", api_key=KEY)


@pytest.mark.parametrize("text", ["${A-B}", "${}", "${A:-b}", "x ${ A } y", "${1}", "${OK} ${sk-live-0123}"])
def test_what_is_no_variable_is_an_error_and_not_a_key(text: str) -> None:
    config = read_config(f'[connections.a]\nprovider = "cloudconvert"\napi_key = "{text}"', environ={"OK": "1"})
    with pytest.raises(tb.ConfigError, match=r"connections\.a\.api_key has something in \$\{…\}") as caught:
        checked(config.connection("a"))
    assert "sk-live" not in str(caught.value)
    assert "is a placeholder" in refused({"api_key": text})
    with pytest.raises(tb.ConfigError, match=r"connections\.a\.provider has something in \$\{…\}"):
        read_config(f'[connections.a]\nprovider = "{text}"', environ={"OK": "1"})


def test_an_opening_brace_alone_is_a_part_of_a_key() -> None:
    config = read_config('[connections.a]\nprovider = "cloudconvert"\napi_key = "pass${word"', environ={})
    assert checked(config.connection("a"))[1].api_key.get_secret_value() == "pass${word"


def test_the_validator_of_a_plugin_does_not_show_a_key() -> None:
    class Settings(CommonSettings):
        api_key: SecretStr

        @field_validator("api_key")
        @classmethod
        def _refuse(cls, value: SecretStr) -> SecretStr:
            raise ValueError(f"{value.get_secret_value()} is too short")

    plugin = type("Plugin", (PROVIDERS["cloudconvert"],), {"Settings": Settings})
    with pytest.raises(tb.ConfigError, match=r"\*\*\* is too short") as caught:
        connection_settings(connection(), plugin)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "suffix", ["a\r\nX-Key: b", "a\nb", "a\0b", "caf\u00e9", "\u201cours\u201d", "a\x7f", "\ud800"]
)
def test_what_goes_into_a_header_is_printable_ascii(suffix: str) -> None:
    assert "user_agent_suffix: must be printable ASCII" in refused({"user_agent_suffix": suffix})
    for driver in (tb, aio):
        with pytest.raises(tb.ConfigError, match="must be printable ASCII"):
            driver.connect("cloudconvert", api_key=KEY, user_agent_suffix=suffix)


def test_a_path_with_nul_is_a_config_error() -> None:
    assert "ca_bundle is the path of a file or folder that does not exist" in refused({"ca_bundle": "a\0b"})


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "taskbridge.toml"
    path.write_text(FILE, encoding="utf-8-sig")
    assert load_config(path, {"CC_KEY": KEY}).connection().provider == "cloudconvert"
