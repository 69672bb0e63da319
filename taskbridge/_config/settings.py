"""What every connection takes, as models, and how a connection reaches the world."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any, NoReturn, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from taskbridge.provider.policy import PollPolicy, RetryPolicy


def _finite(value: float) -> float:
    if not isfinite(value):
        raise ValueError("must be a finite number")
    return value


Seconds: TypeAlias = Annotated[float, AfterValidator(_finite), Field(strict=True, gt=0, le=86_400)]


class _Poll(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)

    latency: Seconds | None = None
    """Seconds of mean delay aimed at between a task's end and the news of it."""
    interval: Seconds | None = None
    """Seconds between two looks, instead of latency."""
    at_most: Seconds = 300.0
    """Seconds after which any task is looked at again."""

    @model_validator(mode="after")
    def _one_wish(self) -> Self:
        if self.latency is not None and self.interval is not None:
            raise ValueError("takes latency or interval, not both")
        return self


class _Retry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)

    attempts: Annotated[int, Field(strict=True, ge=1, le=10)] = 3
    """Requests at most for one request of ours, the first included."""
    first: Annotated[float, AfterValidator(_finite), Field(strict=True, ge=0, le=60)] = 0.5
    """Seconds up to which the first pause is drawn; it doubles with each further one."""
    at_most: Annotated[float, AfterValidator(_finite), Field(strict=True, ge=0, le=3600)] = 20.0
    """Seconds up to which a pause may grow."""


class _Submit(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)

    operation: str | None = None
    """Operation where `client.submit` names none."""
    options: dict[str, Any] = Field(default_factory=dict[str, Any], repr=False)
    """Options of the vendor for that operation, verbatim; options of a call stand above them, key by key."""


class CommonSettings(BaseModel):
    """Settings that every connection takes, in the file and as keywords of `taskbridge.connect` alike."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )

    request_timeout: Seconds = 30.0
    """Total seconds for one look-up or other call, all its attempts and token renewals included; uploads get more."""
    retry: _Retry = _Retry()
    """What one failing look-up is worth."""
    poll: _Poll = _Poll()
    """How often to look at a task that is not finished."""
    submit: _Submit = _Submit()
    """What this connection submits where a call says nothing."""
    allow_private: Annotated[bool, Field(strict=True)] = False
    """Fetch documents and files from this machine and from private networks too, where a link leads there."""
    requests_per_second: Annotated[float, AfterValidator(_finite), Field(strict=True, gt=0, le=100_000)] | None = None
    """Requests a second at most over the whole connection."""
    max_in_flight: Annotated[int, Field(strict=True, ge=1, le=1000)] = 32
    """Requests of this connection under way at the same time, at most."""
    max_body: Annotated[int, Field(strict=True, ge=1024, le=1 << 31)] | None = None
    """Bytes of a decoded answer that are read at most; the provider has its own default."""
    strict: Annotated[bool, Field(strict=True)] = False
    """Raise ContractError for a word that the mapping table does not know."""
    allow_http: Annotated[bool, Field(strict=True)] = False
    """Allow plain http for hosts other than this machine."""
    ca_bundle: str | None = None
    """Path of the certificates to trust, instead of the default ones."""
    proxy: SecretStr | None = None
    """URL of the proxy; it may hold a password."""
    webhook_secrets: tuple[SecretStr, ...] = ()
    """Signing secrets of webhooks; several at once for rotation."""
    user_agent_suffix: str | None = None
    """Text after our own User-Agent."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("settings hold credentials and are not pickled; pass the connection's name instead")

    @property
    def retry_policy(self) -> RetryPolicy:
        """`retry` as the core takes it."""
        return RetryPolicy(self.retry.attempts, self.retry.first, self.retry.at_most)

    @property
    def poll_policy(self) -> PollPolicy:
        """`poll` as the core takes it."""
        return PollPolicy(self.poll.latency, self.poll.interval, self.poll.at_most)
