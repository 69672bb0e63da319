"""Fill the marked regions of README.md and docs/ from the code, and write llms.txt.

    python docs/generate.py            rewrite stale regions
    python docs/generate.py --check    change nothing; exit with 1 if a region is stale

llms.txt is generated as a whole. A region lies between ``<!-- begin: NAME ARGUMENTS -->`` and ``<!-- end -->``. Its
content comes from the objects that the library itself uses: capabilities, mapping tables, settings models, error
classes and their docstrings, commands.
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin

import click
from prose import attribute_docs, code, prose, table, yes
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from site_parts import by_family, llms_txt, reference, signatures, site_pages

from taskbridge import errors, events
from taskbridge._config.descriptions import describe
from taskbridge._config.registry import builtin_providers, load_provider
from taskbridge._config.settings import CommonSettings
from taskbridge._engine.logs import RECORDS
from taskbridge.cli.app import app
from taskbridge.cli.exit_codes import MEANINGS
from taskbridge.cli.options import WIDTH
from taskbridge.emulator.faults import FAULTS, WEBHOOK_FAULTS
from taskbridge.models import Reason, Task, TaskFailure, TaskFile, TaskResult
from taskbridge.provider import (
    NEUTRAL_OPTIONS,
    Accepts,
    Capabilities,
    Downloads,
    IdKind,
    ListPolling,
    NeutralOptions,
    Provider,
    Webhooks,
    base,
)

ROOT: Final = Path(__file__).resolve().parent.parent
REGION: Final = re.compile(r"(<!-- begin: ([^>]+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
MODELS: Final = {each.__name__: each for each in (Task, TaskResult, TaskFile, TaskFailure)}

# Providers.


def builtins() -> list[type[Provider[Any]]]:
    """The built-in providers, by name."""
    return [load_provider(name) for name in sorted(builtin_providers())]


def kinds(of: type[Provider[Any]]) -> str:
    """The kinds of ids of a provider, each with an example."""
    ends = " (ends with its submission, and cannot be got later)"
    return ", ".join(
        f"{each.noun} {code(_short(each))}{'' if each.resumable else ends}" for each in of.capabilities.kinds
    )


def _short(kind: IdKind) -> str:
    prefix, slash, native = kind.example.rpartition("/")
    uuid = re.fullmatch(r"([0-9a-f]{4})[0-9a-f]{4}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", native)
    return f"{prefix}{slash}{uuid[1]}…" if uuid else kind.example


def providers() -> str:
    """The providers at a glance."""
    head = ("Vendor", "`provider`", "Ids", "Credentials", "Progress", "Waits by", "Result")
    return table(
        head,
        (
            (
                f"[{each.title}]({each.docs})",
                code(each.name),
                kinds(each),
                each.capabilities.authentication,
                yes(each.capabilities.progress),
                "long poll, polling" if each.capabilities.long_poll else "polling",
                "separate request" if each.capabilities.separate_result else "in the status response",
            )
            for each in builtins()
        ),
    )


def faults() -> str:
    """The faults that emulators can inject."""
    rows = [(name, effect) for name, (effect, _) in FAULTS.items()] + list(WEBHOOK_FAULTS.items())
    return table(("Name", "What happens"), ((code(name), effect) for name, effect in rows))


SHOWN_ELSEWHERE: Final = frozenset({"kinds", "reasons", "operations", "accepts", "options", "result_parts"})


def features() -> str:
    """The feature matrix: a row for each capability and reason that any provider has, a column for each provider."""
    vendors = builtins()
    capabilities = [each.capabilities for each in vendors]
    rows: list[tuple[str, ...]] = [("Ids", *(kinds(each) for each in vendors))]
    rows += [
        (_label(meaning), *(_shown(getattr(each, name)) for each in capabilities))
        for name, meaning in attribute_docs(Capabilities).items()
        if name not in SHOWN_ELSEWHERE
    ]
    rows.append(("Maximum response size", *(_size(each.max_body) for each in vendors)))
    rows += [(f"Reason {code(each)}", *(yes(each in one.reasons) for one in capabilities)) for each in Reason]
    used = (row for row in rows if not {"no", "none"}.issuperset(row[1:]))
    return table(("", *(f"[{each.title}](vendors/{each.name}.md)" for each in vendors)), used)


def operations() -> str:
    """The neutral operations: for each vendor, the neutral options and values that it can do, and what it takes."""
    vendors = builtins()
    rows = ((code(name), *(_operation(each.capabilities, name) for each in vendors)) for name in NEUTRAL_OPTIONS)
    return table(("", *(f"[{each.title}]({each.docs})" for each in vendors)), rows)


def _operation(capabilities: Capabilities, name: str) -> str:
    native = capabilities.operations.get(name)
    if native is None:
        return "no"
    rows = capabilities.options.get(name, {}).items()
    options = [code(key) if isinstance(row, str) else f"{code(key)} ({', '.join(row)})" for key, row in rows]
    return f"{', '.join(options) or 'no options'}; documents: {_accepted(capabilities.accepts.get(native, Accepts()))}"


def results() -> str:
    """What the results of each operation can have in the neutral shape, by vendor."""
    vendors = builtins()
    names = [*NEUTRAL_OPTIONS, *sorted({name for each in vendors for name in each.capabilities.result_parts})]
    rows = ((code(name), *(_results(each.capabilities, name) for each in vendors)) for name in dict.fromkeys(names))
    return table(("", *(f"[{each.title}](vendors/{each.name}.md)" for each in vendors)), rows)


def _results(capabilities: Capabilities, name: str) -> str:
    parts = capabilities.result_parts.get(name, frozenset[str]())
    if not parts:
        return "files or data only" if name in capabilities.operations else "no"
    return ", ".join(code(each) for each in ("text", "pages", "fields") if each in parts)


def _documents(capabilities: Capabilities) -> str:
    """What each operation takes; those that take the same are named together."""
    same: dict[Accepts, list[str]] = {}
    for word, accepts in capabilities.accepts.items():
        same.setdefault(accepts, []).append(word)
    return "; ".join(f"{_codes(words)}: {_accepted(accepts)}" for accepts, words in same.items()) or "any"


def _accepted(accepts: Accepts) -> str:
    types = _codes(sorted(accepts.media_types)) if accepts.media_types else "any"
    most = "several" if accepts.at_most is None else f"up to {accepts.at_most}"
    return f"{types}, {most} at once" if accepts.several else types


def options(name: str) -> str:
    """How a provider says the neutral options in the vendor's words."""
    rows: list[tuple[str, ...]] = []
    for operation, row_of in load_provider(name).capabilities.options.items():
        for option, row in row_of.items():
            if isinstance(row, str):
                rows.append((code(operation), code(option), "any", code(row)))
                continue
            for value, own in row.items():
                said = ", ".join(code(f"{key}={each}") for key, each in own.items())
                rows.append((code(operation), code(option), code(value), said or "nothing: it is always so"))
    return table(("Operation", "Neutral option", "Value", "Vendor"), rows)


def neutral_options() -> str:
    """The neutral options, with the operations that take them."""
    rows = (
        (
            code(name),
            _codes(operation for operation, names in NEUTRAL_OPTIONS.items() if name in names),
            prose(meaning),
        )
        for name, meaning in attribute_docs(NeutralOptions).items()
    )
    return table(("Option", "Operations", "Meaning"), rows)


# Published packages that tests run against the emulators, or whose signatures they compare with ours.
REFEREES: Final[Mapping[str, str]] = {"cloudconvert": "`cloudconvert` 2.1.0", "scan-documents": "`svix`, for webhooks"}


def evidence() -> str:
    """The evidence for each provider, besides its emulator."""
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
    return table(("Vendor", "Examples", "Independent client", "Unknowns"), rows)


def _label(words: str) -> str:
    """The description of an attribute, shortened to a row label: ``Whether it holds. More.`` becomes ``It holds``."""
    short = re.split(r"\. |\.$|; None", prose(words))[0].removeprefix("Whether ")
    return short[:1].upper() + short[1:]


def _summed_up(value: Downloads | Webhooks | ListPolling) -> str:
    if isinstance(value, Webhooks):
        return f"yes, verified by {value.scheme}"
    if isinstance(value, ListPolling):
        return f"{value.page_size} tasks a page{', whole' if value.whole_rows else ''}"
    return ", ".join(value.parts)


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


def summary(name: str) -> str:
    """The capabilities of one provider."""
    of = load_provider(name)
    capabilities = of.capabilities
    rows = [
        ("`provider`", code(of.name)),
        ("Vendor's documentation", f"<{of.docs}>"),
        ("Ids", "; ".join(f"{each.noun}, such as {code(each.example)}" for each in capabilities.kinds)),
        ("Credentials", capabilities.authentication),
        ("Progress", "reported by the vendor" if capabilities.progress else "not reported; `task.progress` is None"),
        ("Waits by", "long poll, with polling as fallback" if capabilities.long_poll else "polling"),
        ("Result", "fetched by a separate request" if capabilities.separate_result else "part of the status response"),
        ("Subtasks", "the tasks of a job" if capabilities.subtasks else "none"),
        ("Operations", _codes(sorted(capabilities.operations))),
        ("Kinds of input", _codes(sorted(capabilities.inputs))),
        ("Documents", _documents(capabilities)),
        ("Calls besides `get`, `wait`, `result`", _codes(capabilities.calls)),
        ("`download` saves", downloads(capabilities.downloads)),
        ("Webhooks", f"verified by {capabilities.webhooks.scheme}" if capabilities.webhooks else "none"),
        ("Reasons used", _codes(capabilities.reasons)),
        ("Maximum response size", _size(of.max_body)),
    ]
    return table(("Topic", "Fact"), rows)


def downloads(capability: Downloads | None) -> str:
    """What `client.download` saves, and how it fetches files."""
    if capability is None:
        return "nothing"
    parts = ", ".join(capability.parts)
    if "files" not in capability.parts:
        return f"{parts}, taken from the vendor's response"
    how = "by link" if capability.links else "with the credential of the connection"
    ttl = f"; links live {capability.link_ttl / 3600:g} hours" if capability.link_ttl is not None else ""
    resumed = "; interrupted downloads resume" if capability.resumes else ""
    return f"{parts}; files are fetched {how}{ttl}{resumed}"


def _codes(names: Iterable[object]) -> str:
    return ", ".join(code(each) for each in names) or "none"


def _size(count: int) -> str:
    return f"{count >> 20} MiB"


# Mapping tables.


def mapping(name: str, attribute: str) -> str:
    """One mapping table of a provider, by its name in the provider's module."""
    value: Any = vars(sys.modules[load_provider(name).__module__])[attribute]
    rows = list(_rows(value))
    width = max(len(row) for row in rows)
    head = {
        2: ("Vendor", "taskbridge"),
        3: ("Vendor's status", "`status`", "`reason`"),
        4: ("`operation`", "Vendor's status", "`status`", "`reason`"),
    }[width]
    return table(head, rows)


def _rows(value: Mapping[Any, Any]) -> Iterator[tuple[str, ...]]:
    for word, mapped in value.items():
        if isinstance(mapped, Mapping):
            usual = _general_table(value)
            inner = cast("Mapping[str, Any]", mapped)
            changed = {key: row for key, row in inner.items() if usual.get(key) != row}
            yield from ((code(word), *row) for row in _rows(changed))
        elif isinstance(mapped, tuple):
            status, reason = cast("tuple[Enum, Enum | None]", mapped)
            yield code(word), code(status), code(reason) if reason else ""
        elif isinstance(mapped, type):
            yield code(word), code(cast("type[object]", mapped).__name__)
        else:
            yield code(word), code(mapped)


def _general_table(tables: Mapping[Any, Any]) -> Mapping[str, Any]:
    """The provider's general status table, which the given tables refine."""
    for each in builtins():
        names = vars(sys.modules[each.__module__])
        if any(value is tables for value in names.values()):
            return cast("Mapping[str, Any]", names["STATES"])
    raise AssertionError("no provider has this table of tables")


def error_mapping(name: str) -> str:
    """How a provider's error responses become errors, where it differs from the general rule."""
    of = load_provider(name)
    rows = [
        *((f"code {code(key)}", code(kind.__name__)) for key, kind in of.codes.items()),
        *((f"HTTP {key}", code(kind.__name__)) for key, kind in of.statuses.items()),
        ("anything else", "by [HTTP status](../errors.md#by-http-status)"),
    ]
    account = " or ".join(code(each) for each in ("401", *sorted(map(str, of.account_errors))))
    note = f"These concern the whole account and end every wait of the connection: {account}.\n"
    return f"{table(('Vendor responds', 'Error'), rows)}\n{note}"


def http_statuses() -> str:
    """The general rule: HTTP status to error."""
    rows = [(str(status), code(row.error.__name__)) for status, row in sorted(base.STATUS_ERRORS.items())]
    return table(("HTTP status", "Error"), [*rows, ("any other 4xx", "`ApiError`"), ("5xx", "`ServerError`")])


# Settings.


def settings(name: str) -> str:
    """The settings of a provider, or the common ones."""
    model = CommonSettings if name == "common" else load_provider(name).Settings
    return table(("Setting", "Type", "Default", "Meaning"), _settings(model))


def _settings(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, ...]]:
    descriptions = describe(model)
    for key, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _settings(inner, f"{above}{key}.")
            continue
        yield code(f"{above}{key}"), _kind(field.annotation, key), _default(field), prose(descriptions.get(key, ""))


def variables() -> str:
    """The environment variables that the vendors' own clients read."""
    rows = ((each.title, _codes(each.Settings.variables.values())) for each in builtins())
    return table(("Vendor", "Variables"), rows)


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
    """The fields of a model, and whether each is normalized or verbatim."""
    rows: list[tuple[str, ...]] = []
    for key, docstring in attribute_docs(MODELS[name]).items():
        kind, _, meaning = docstring.partition(": ")
        rows.append((code(key), kind.lower(), prose(meaning)))
    return table(("Field", "Kind", "Meaning"), rows)


def reasons() -> str:
    """The reasons."""
    return table(("`reason`", "Meaning"), _members(Reason))


def members(name: str) -> str:
    """The members of an enumeration of `taskbridge.events`."""
    return table(("Value", "Meaning"), _members(vars(events)[name]))


def _members(kind: type[Enum]) -> list[tuple[str, ...]]:
    return [(code(kind[name]), prose(docstring)) for name, docstring in attribute_docs(kind).items()]


def event(name: str) -> str:
    """The attributes of an event of `taskbridge.events`."""
    rows = ((code(key), prose(docstring)) for key, docstring in attribute_docs(vars(events)[name]).items())
    return table(("Attribute", "Meaning"), rows)


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
    """Every error, its base class and the first paragraph of its docstring."""
    rows: list[tuple[str, ...]] = []
    for kind in by_family(errors.TaskbridgeError):
        meaning = (inspect.getdoc(kind) or "").partition("\n\n")[0]
        rows.append(
            (
                code(kind.__name__),
                _codes(each.__name__ for each in kind.__bases__),
                prose(meaning),
                yes(kind.retryable_by_default),
            )
        )
    return table(("Error", "Base class", "Meaning", "`retryable`"), rows)


# The command line.


def exit_codes() -> str:
    """The exit codes of the command line."""
    return table(("Code", "Meaning"), [(str(number), meaning) for number, meaning in MEANINGS.items()])


def commands() -> str:
    """The help of every command at 80 columns."""
    return "\n".join(_section(each) for each in _contexts(_context(app, None)))


def _contexts(context: click.Context) -> Iterator[click.Context]:
    """Yield a command and its subcommands."""
    yield context
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None  # noqa: S101  # the group lists it
            yield from _contexts(_context(command, context))


def _context(command: click.Command, parent: click.Context | None) -> click.Context:
    name = "taskbridge" if parent is None else command.name
    return click.Context(
        command, info_name=name, parent=parent, terminal_width=WIDTH, help_option_names=["-h", "--help"]
    )


def _section(context: click.Context) -> str:
    lines = (line.rstrip() for line in context.get_help().splitlines())
    return f"## {context.command_path}\n\n```text\n" + "\n".join(lines) + "\n```\n"


# Filling the regions.

FILES: Final[Mapping[str, Callable[[], str]]] = {"llms.txt": llms_txt}
MAKERS: Final[Mapping[str, Callable[..., str]]] = {
    "calls": signatures,
    "commands": commands,
    "error-classes": error_classes,
    "error-mapping": error_mapping,
    "event": event,
    "evidence": evidence,
    "exit-codes": exit_codes,
    "faults": faults,
    "features": features,
    "fields": fields,
    "http-statuses": http_statuses,
    "log-records": log_records,
    "mapping": mapping,
    "members": members,
    "neutral-options": neutral_options,
    "operations": operations,
    "options": options,
    "pages": site_pages,
    "providers": providers,
    "reasons": reasons,
    "results": results,
    "reference": reference,
    "settings": settings,
    "variables": variables,
    "summary": summary,
}


def filled(page: str) -> str:
    """Return a page with its regions filled.

    Raises:
        KeyError: There is no generator for the name of a region.
    """

    def one(found: re.Match[str]) -> str:
        name, *arguments = found[2].split()
        return f"{found[1]}\n{MAKERS[name](*arguments)}\n{found[4]}"

    return REGION.sub(one, page)


def pages() -> list[Path]:
    """The pages that may contain regions."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main(arguments: list[str]) -> int:
    """Rewrite the pages, or report which are stale; return the exit code."""
    check = arguments == ["--check"]
    if arguments and not check:
        sys.stderr.write("usage: python docs/generate.py [--check]\n")
        return 2
    stale: list[Path] = []
    texts = {path: filled(path.read_text(encoding="utf-8")) for path in pages()}
    texts |= {ROOT / name: make() for name, make in FILES.items() if (ROOT / name).exists()}
    for path, new in texts.items():
        old = path.read_text(encoding="utf-8")
        if new != old:
            stale.append(path)
            if not check:
                path.write_text(new, encoding="utf-8")
    for path in stale:
        sys.stdout.write(f"{path.relative_to(ROOT)} {'is stale' if check else 'rewritten'}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
