"""The settings that every connection has, as pydantic models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NoReturn, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from taskbridge._config.files import nearest
from taskbridge.models import TaskStatus
from taskbridge.provider.options import TextFormat
from taskbridge.provider.payload import StateTable, normalized_word
from taskbridge.provider.policy import RetryPolicy
from taskbridge.provider.storage import storage_problem

Number: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Seconds: TypeAlias = Annotated[Number, Field(gt=0, le=86_400)]


def _check_header(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise ValueError("must be printable ASCII, since it is sent in a header")
    return text


HeaderText: TypeAlias = Annotated[str, AfterValidator(_check_header)]


def _check_status(value: object) -> object:
    if value in list(TaskStatus):
        return value
    hint = nearest(value, TaskStatus) if isinstance(value, str) else ""
    raise ValueError(f"{hint}write what the vendor's word means here: {_listed(TaskStatus)}")


def _check_words(table: Mapping[str, TaskStatus]) -> Mapping[str, TaskStatus]:
    seen: dict[str, str] = {}
    for word in table:
        normalized = normalized_word(word)
        if not normalized or not word.isprintable():
            raise ValueError("a key is the vendor's status word: printable, and not blank")
        if normalized in seen:
            raise ValueError(f"{seen[normalized]!r} and {word!r} are the same word: case and spaces are ignored")
        seen[normalized] = word
    return table


def _listed(words: Iterable[str]) -> str:
    return " or ".join(f'"{word}"' for word in words)


States: TypeAlias = Annotated[
    dict[str, Annotated[TaskStatus, BeforeValidator(_check_status)]], AfterValidator(_check_words)
]


def _check_stage(url: str) -> str:
    problem = storage_problem(url)
    if problem is not None:
        raise ValueError(f'{problem}; write it as "s3://bucket/prefix"')
    return url.rstrip("/")


StageUrl: TypeAlias = Annotated[str, AfterValidator(_check_stage)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)


class _Poll(_Settings):
    latency: Seconds | None = None
    """Mean delay to aim at between a task's end and its detection, in seconds."""
    interval: Seconds | None = None
    """Seconds between two polls, instead of latency."""
    at_most: Seconds = 300.0
    """Longest interval between two polls of a task, in seconds."""

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        if self.latency is not None and self.interval is not None:
            raise ValueError("takes latency or interval, not both")
        return self


class _Retry(_Settings):
    attempts: Annotated[int, Field(strict=True, ge=1, le=10)] = 3
    """Most attempts for one request, the first included."""
    first: Annotated[Number, Field(ge=0, le=60)] = 0.5
    """Longest first pause in seconds; it doubles with each further one."""
    at_most: Annotated[Number, Field(ge=0, le=3600)] = 20.0
    """Longest pause in seconds."""


class _Submit(_Settings):
    operation: str | None = None
    """Operation if `client.submit` names none."""
    to: str | None = None
    """Neutral option of that operation, as are the next four: the format of the result, such as ``pdf``."""
    text_format: TextFormat | None = None
    """Markup of the text: ``plain``, ``markdown`` or ``html``."""
    language: str | None = None
    """Language of the documents, such as ``de``."""
    pages: str | int | None = None
    """Pages of the documents, such as ``1,3,5-8``."""
    dpi: Annotated[int, Field(strict=True, ge=1, le=10_000)] | None = None
    """Resolution of the images, in dots per inch."""
    options: dict[str, Any] = Field(default_factory=dict[str, Any], repr=False)
    """Options of the vendor for that operation, verbatim; options of a call override them, key by key."""


class CommonSettings(_Settings):
    """Settings that every connection has, in the file and as keywords of `taskbridge.connect`."""

    request_timeout: Seconds = 30.0
    """Total seconds for one call such as a status request, with all attempts and token renewals; uploads get more."""
    retry: _Retry = Field(default_factory=_Retry)
    """How often a failed request is retried."""
    poll: _Poll = Field(default_factory=_Poll)
    """How often an unfinished task is polled."""
    submit: _Submit = Field(default_factory=_Submit)
    """What this connection submits if a call does not say."""
    stage: StageUrl | None = None
    """Where documents are put for a vendor that takes only URLs, such as `s3://bucket/prefix`."""
    stage_ttl: Annotated[Number, Field(ge=60, le=604_800)] = 86_400.0
    """Seconds for which the signed link to a document is valid: as long as a task may need it, at most a week."""
    allow_private: Annotated[bool, Field(strict=True)] = False
    """Allow links to documents and files on this machine and in private networks."""
    requests_per_second: Annotated[Number, Field(ge=1e-5, le=100_000)] | None = None
    """Most requests per second of the whole connection."""
    max_in_flight: Annotated[int, Field(strict=True, ge=1, le=1000)] = 32
    """Most concurrent requests of this connection."""
    max_body: Annotated[int, Field(strict=True, ge=1024, le=1 << 31)] | None = None
    """Most bytes of a decoded response that are read; the provider has its own default."""
    strict: Annotated[bool, Field(strict=True)] = False
    """Raise ContractError for a status word that the mapping table does not have."""
    states: States = Field(default_factory=dict[str, TaskStatus])
    """Meanings of the vendor's status words, such as `Integrated = "completed"`; they override the mapping table."""
    allow_http: Annotated[bool, Field(strict=True)] = False
    """Allow plain http to hosts other than this machine."""
    ca_bundle: str | None = None
    """Path of the certificates to trust, instead of the default ones."""
    transport: Literal["auto", "curl", "requests"] = "auto"
    """What sends the requests; `auto` is libcurl where it is installed and can do what is needed, else requests."""
    proxy: SecretStr | None = None
    """URL of the proxy; it may contain a password."""
    webhook_secrets: tuple[SecretStr, ...] = ()
    """Signing secrets of webhooks; several at once for rotation."""
    user_agent_suffix: HeaderText | None = None
    """Text to append to the User-Agent."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("settings hold credentials and are not pickled; pass the connection's name instead")

    @property
    def state_table(self) -> StateTable:
        """`states` as a table for `Provider.state`."""
        return {word: (status, None) for word, status in self.states.items()}

    @property
    def retry_policy(self) -> RetryPolicy:
        """`retry` as a `RetryPolicy`."""
        return RetryPolicy(self.retry.attempts, self.retry.first, self.retry.at_most)
