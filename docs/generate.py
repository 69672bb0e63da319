"""Fill the marked regions of README.md and docs/ from the code.

    python docs/generate.py            rewrite what is stale
    python docs/generate.py --check    change nothing; exit with 1 where something is stale

A region stands between ``<!-- begin: NAME ARGUMENTS -->`` and ``<!-- end -->``. What it says comes from the objects
that the library itself works with: capabilities, mapping tables, settings models, error classes and their docstrings.
"""

from __future__ import annotations

import ast
import inspect
import logging
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin

from prose import code, prose, table, yes
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from site_parts import by_family, reference, site_pages

from taskbridge import errors
from taskbridge import events as observing
from taskbridge._config.registry import builtin_providers, load_provider
from taskbridge._config.settings import CommonSettings
from taskbridge._engine.logs import RECORDS
from taskbridge.emulator.faults import FAULTS, WEBHOOK_FAULTS
from taskbridge.models import Reason, Task, TaskFailure, TaskFile, TaskResult
from taskbridge.provider import Capabilities, Downloads, IdKind, ListPolling, Provider, Webhooks
from taskbridge.provider import base as dialogue

ROOT: Final = Path(__file__).resolve().parent.parent
REGION: Final = re.compile(r"(<!-- begin: ([^>]+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
MODELS: Final[Mapping[str, type[BaseModel]]] = {
    each.__name__: each for each in (Task, TaskResult, TaskFile, TaskFailure)
}

# What is installed.


def builtins() -> list[type[Provider[Any]]]:
    """The built-in providers, by name."""
    return [load_provider(name) for name in sorted(builtin_providers())]


def kinds(of: type[Provider[Any]]) -> str:
    """What a provider looks up, with an example of each id."""
    return ", ".join(f"{each.noun} {code(_short(each))}" for each in of.capabilities.kinds)


def _short(kind: IdKind) -> str:
    prefix, slash, native = kind.example.rpartition("/")
    uuid = re.fullmatch(r"([0-9a-f]{4})[0-9a-f]{4}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", native)
    return f"{prefix}{slash}{uuid[1]}…" if uuid else kind.example


def providers() -> str:
    """The providers, for people who choose."""
    head = ("Vendor", "`provider`", "Looks up", "Signs in with", "Progress", "Waits by", "Result")
    return table(
        head,
        (
            (
                f"[{each.title}]({each.docs})",
                code(each.name),
                kinds(each),
                each.capabilities.authentication,
                yes(each.capabilities.progress),
                "held line, polling" if each.capabilities.long_poll else "polling",
                "own request" if each.capabilities.result_apart else "in the status answer",
            )
            for each in builtins()
        ),
    )


def faults() -> str:
    """What emulators do wrong on request."""
    rows = [(name, does) for name, (does, _) in FAULTS.items()] + list(WEBHOOK_FAULTS.items())
    return table(("Name", "What happens"), ((code(name), does) for name, does in rows))


def features() -> str:
    """The feature matrix: a row for each capability and each reason that one has, a column for each provider."""
    vendors = builtins()
    able = [each.capabilities for each in vendors]
    rows: list[tuple[str, ...]] = [("Looks up", *(kinds(each) for each in vendors))]
    rows += [
        (words, *(_shown(getattr(one, name)) for one in able))
        for name, words in _attributes(Capabilities).items()
        if name not in {"kinds", "reasons"}
    ]
    rows.append(("Bytes of an answer that are read at most", *(_size(each.max_body) for each in vendors)))
    rows += [(f"Reason {code(each)}", *(yes(each in one.reasons) for one in able)) for each in Reason]
    kept = (row for row in rows if not {"no", "none"}.issuperset(row[1:]))
    return table(("", *(f"[{each.title}](vendors/{each.name}.md)" for each in vendors)), kept)


# Published clients that work against a vendor's emulator, or prove and sign with what we prove and sign.
REFEREES: Final[Mapping[str, str]] = {"cloudconvert": "`cloudconvert` 2.1.0", "scan-documents": "`svix`, for webhooks"}


def evidence() -> str:
    """What a provider is tested with, beside the emulator."""
    golden = ROOT / "tests" / "golden"
    rows = (
        (
            f"[{each.title}](vendors/{each.name}.md#sources)",
            str(len(list((golden / each.name).glob("*.json")))),
            REFEREES.get(each.name, "none"),
            f"[listed](vendors/{each.name}.md#what-is-unknown)",
        )
        for each in builtins()
    )
    return table(("Vendor", "Examples", "Referee", "Unknown"), rows)


def _attributes(kind: type[object]) -> dict[str, str]:
    """The attributes that a docstring describes, in its order."""
    section = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.+(?:\n      +.+)*)", section, re.MULTILINE)
    return {name: _label(" ".join(words.split())) for name, words in found}


def _label(words: str) -> str:
    """What an attribute is, as the name of a row: ``Whether it holds. More.`` is ``It holds``."""
    short = re.split(r"\. |\.$|; None", prose(words))[0].removeprefix("Whether ")
    return short[:1].upper() + short[1:]


def _summed_up(value: Downloads | Webhooks | ListPolling) -> str:
    if isinstance(value, Webhooks):
        return f"webhooks, proved by: {value.scheme}"
    return f"{value.page_size} tasks a page" if isinstance(value, ListPolling) else ", ".join(value.parts)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return yes(value)
    if value is None:
        return "none"
    if isinstance(value, Downloads | Webhooks | ListPolling):
        return _summed_up(value)
    if isinstance(value, Mapping | frozenset | tuple):
        names = [str(each) for each in cast("Iterable[object]", value)]
        return ", ".join(code(each) for each in (names if isinstance(value, tuple) else sorted(names))) or "none"
    return f"{value:,.0f}" if isinstance(value, int | float) else value if isinstance(value, str) else "yes"


def glance(name: str) -> str:
    """One provider's capabilities."""
    of = load_provider(name)
    able = of.capabilities
    rows = [
        ("`provider`", code(of.name)),
        ("Vendor's document", f"<{of.docs}>"),
        ("Looks up", "; ".join(f"{each.noun}, such as {code(each.example)}" for each in able.kinds)),
        ("Signs in with", able.authentication),
        ("Progress", "reported by the vendor" if able.progress else "none; `task.progress` is None"),
        ("Waits by", "a held line, else polling" if able.long_poll else "polling"),
        ("Result", "fetched by a request of its own" if able.result_apart else "inside the status answer"),
        ("Subtasks", "the tasks of a job" if able.subtasks else "none"),
        ("Operations", ", ".join(code(each) for each in sorted(able.operations)) or "none"),
        ("Documents given as", ", ".join(code(each) for each in sorted(able.inputs)) or "none"),
        ("Calls beside `get`, `wait`, `result`", ", ".join(code(each) for each in able.calls) or "none"),
        ("Brought home by `download`", downloads(able.downloads)),
        ("Tells unasked", "by webhooks" if able.webhooks else "nothing"),
        ("Reasons that occur", ", ".join(code(each) for each in able.reasons) or "none"),
        ("Largest answer read", _size(of.max_body)),
    ]
    return table(("Topic", "Fact"), rows)


def downloads(able: Downloads | None) -> str:
    """What `client.download` brings home, and how."""
    if able is None:
        return "nothing"
    how = "by links" if able.links else "with the connection's credential"
    life = f" that live {able.link_ttl / 3600:g} hours" if able.link_ttl is not None else ""
    fetched = f"; files are fetched {how}{life}" if "files" in able.parts else ", of the vendor's answer"
    rest = ", and gone on with where they broke off" if able.resumes else ""
    return f"{', '.join(able.parts)}{fetched}{rest}"


def _size(count: int) -> str:
    return f"{count >> 20} MiB"


# Mapping tables.


def mapping(name: str, attribute: str) -> str:
    """One of a provider's tables, by the name that it has in the provider's file."""
    value: Any = vars(sys.modules[load_provider(name).__module__])[attribute]
    rows = list(_rows(value))
    width = max(len(row) for row in rows)
    head = {
        2: ("The vendor's", "taskbridge"),
        3: ("The vendor's word", "`status`", "`reason`"),
        4: ("`operation`", "The vendor's word", "`status`", "`reason`"),
    }[width]
    return table(head, rows)


def _rows(value: Mapping[Any, Any], above: Mapping[str, Any] | None = None) -> Iterator[tuple[str, ...]]:
    for word, ours in value.items():
        if isinstance(ours, Mapping):
            usual = above or _usual(value)
            inner = cast("Mapping[str, Any]", ours)
            changed = {key: row for key, row in inner.items() if usual.get(key) != row}
            yield from ((code(word), *row) for row in _rows(changed))
        elif isinstance(ours, tuple):
            status, reason = cast("tuple[Enum, Enum | None]", ours)
            yield code(word), code(status), code(reason) if reason else ""
        elif isinstance(ours, type):
            yield code(word), code(cast("type[object]", ours).__name__)
        else:
            yield code(word), code(ours)


def _usual(tables: Mapping[Any, Any]) -> Mapping[str, Any]:
    """The provider's general table, which the given ones refine."""
    for each in builtins():
        names = vars(sys.modules[each.__module__])
        if any(value is tables for value in names.values()):
            return cast("Mapping[str, Any]", names["STATES"])
    raise AssertionError("a table of tables belongs to a provider")


def refusals(name: str) -> str:
    """What a provider's refusals become, where it differs from the rule of all."""
    of = load_provider(name)
    rows = [
        *((f"code {code(key)}", code(kind.__name__)) for key, kind in of.codes.items()),
        *((f"HTTP {key}", code(kind.__name__)) for key, kind in of.statuses.items()),
        ("anything else", "as [the HTTP status says](../errors.md#by-http-status)"),
    ]
    blamed = " or ".join(code(each) for each in ("401", *sorted(map(str, of.account_refusals))))
    told = f"About the whole account, so that every wait of the connection ends with it: {blamed}.\n"
    return f"{table(('The vendor answers', 'Error'), rows)}\n{told}"


_BY_STATUS: Final[Mapping[int, type[errors.ApiError]]] = vars(dialogue)["_BY_STATUS"]


def http_statuses() -> str:
    """The rule of all: HTTP status to error."""
    rows = [(str(status), code(kind.__name__)) for status, kind in sorted(_BY_STATUS.items())]
    return table(("HTTP status", "Error"), [*rows, ("any other 4xx", "`ApiError`"), ("5xx", "`ServerError`")])


# Settings.


def settings(name: str) -> str:
    """The settings of a provider, or the common ones."""
    model = CommonSettings if name == "common" else load_provider(name).Settings
    return table(("Setting", "Type", "Default", "Meaning"), _settings(model))


def _settings(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, ...]]:
    for key, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _settings(inner, f"{above}{key}.")
            continue
        yield code(f"{above}{key}"), _kind(field.annotation, key), _default(field), prose(field.description or "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: object = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ((), {}):
        return ""
    return code(str(value).lower() if isinstance(value, bool) else value)


_KINDS: Final[Mapping[object, str]] = {
    SecretStr: "secret",
    str: "text",
    bool: "true or false",
    int: "whole number",
    float: "number",
}


def _kind(annotation: object, key: str) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0], key)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(each, key) for each in get_args(annotation) if each is not types.NoneType)
    if origin is Literal:
        return " or ".join(code(each) for each in get_args(annotation))
    if origin is dict:
        return "table"
    if origin is tuple:
        return f"list of {_kind(get_args(annotation)[0], key)}s"
    return "URL" if annotation is str and key.endswith("_url") else _KINDS[annotation]


# The model and the errors.


def fields(name: str) -> str:
    """The fields of a model, each with whose words it holds."""
    rows: list[tuple[str, ...]] = []
    for key, field in MODELS[name].model_fields.items():
        whose, _, words = (field.description or "").partition(": ")
        rows.append((code(key), whose.lower(), prose(words)))
    return table(("Field", "Whose", "Meaning"), rows)


def reasons() -> str:
    """The reasons."""
    return table(("`reason`", "Meaning"), _members(Reason))


def members(name: str) -> str:
    """The members of an enumeration of `taskbridge.events`."""
    return table((code(name.lower()), "Meaning"), _members(vars(observing)[name]))


def _members(kind: type[Enum]) -> list[tuple[str, ...]]:
    """Members with their docstrings, which stand behind each."""
    parsed = ast.parse(inspect.getsource(kind)).body[0]
    if not isinstance(parsed, ast.ClassDef):
        raise TypeError("an enumeration is a class")
    rows: list[tuple[str, ...]] = []
    for member, words in zip(parsed.body, parsed.body[1:], strict=False):
        if isinstance(member, ast.Assign) and isinstance(words, ast.Expr) and isinstance(words.value, ast.Constant):
            target = member.targets[0]
            name = target.id if isinstance(target, ast.Name) else ""
            rows.append((code(kind[name]), prose(str(words.value.value))))
    return rows


def event(name: str) -> str:
    """The attributes of an event of `taskbridge.events`."""
    section = (inspect.getdoc(vars(observing)[name]) or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.+(?:\n      +.+)*)", section, re.MULTILINE)
    return table(("Attribute", "Meaning"), ((code(key), prose(words)) for key, words in found))


def log_records() -> str:
    """Every kind of log record."""
    rows = [
        (
            code(name),
            code(row.logger.name),
            logging.getLevelName(row.level),
            row.meaning,
            ", ".join(code(key) for key in sorted({*re.findall(r"%\((\w+)\)", row.text), *row.more})),
        )
        for name, row in RECORDS.items()
    ]
    return table(("`event`", "Logger", "Level", "When", "Attributes"), rows)


def error_classes() -> str:
    """Every error with its parent and the first paragraph of its docstring."""
    rows: list[tuple[str, ...]] = []
    for kind in by_family(errors.TaskbridgeError):
        parents = ", ".join(code(each.__name__) for each in kind.__bases__)
        words = (inspect.getdoc(kind) or "").partition("\n\n")[0]
        rows.append((code(kind.__name__), parents, prose(words), yes(kind.retryable_by_default)))
    return table(("Error", "Is a", "Meaning", "`retryable`"), rows)


# Filling in.

MAKERS: Final[Mapping[str, Callable[..., str]]] = {
    "error-classes": error_classes,
    "evidence": evidence,
    "faults": faults,
    "features": features,
    "fields": fields,
    "glance": glance,
    "event": event,
    "http-statuses": http_statuses,
    "log-records": log_records,
    "mapping": mapping,
    "members": members,
    "pages": site_pages,
    "providers": providers,
    "reasons": reasons,
    "reference": reference,
    "refusals": refusals,
    "settings": settings,
}


def filled(page: str) -> str:
    """A page with its regions made anew.

    Raises:
        KeyError: A region names nothing that can be made.
    """

    def one(found: re.Match[str]) -> str:
        name, *arguments = found[2].split()
        return f"{found[1]}\n{MAKERS[name](*arguments)}\n{found[4]}"

    return REGION.sub(one, page)


def pages() -> list[Path]:
    """The pages that may have regions."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main(arguments: list[str]) -> int:
    """Rewrite the pages, or say which are stale; the exit code."""
    check = arguments == ["--check"]
    if arguments and not check:
        sys.stderr.write("usage: python docs/generate.py [--check]\n")
        return 2
    stale: list[Path] = []
    for path in pages():
        old = path.read_text(encoding="utf-8")
        new = filled(old)
        if new != old:
            stale.append(path)
            if not check:
                path.write_text(new, encoding="utf-8")
    for path in stale:
        sys.stdout.write(f"{path.relative_to(ROOT)} {'is stale' if check else 'rewritten'}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
