"""A script that only imports pydantic and requests and defines models such as `tb.connect` needs: a baseline.

With the argument ``at-once``, models are built when they are defined, which is pydantic's default.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import requests
from pydantic import BaseModel, ConfigDict, Field, SecretStr

DEFER = "at-once" not in sys.argv


class Status(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=DEFER)


class File(Model):
    id: str | None = None
    name: str | None = None
    url: str | None = Field(default=None, repr=False)
    size: int | None = None
    media_type: str | None = None
    expires_at: datetime | None = None
    properties: Mapping[str, Any] | None = None


class Result(Model):
    files: tuple[File, ...] = ()
    text: str | None = Field(default=None, repr=False)
    data: Any = Field(default=None, repr=False)


class Failure(Model):
    code: str | None = None
    message: str | None = None
    details: Any = None


class Task(Model):
    provider: str
    connection: str
    id: str
    native_id: str | int
    status: Status
    native_status: str | None = None
    recognized: bool = True
    reason: str | None = None
    operation: str | None = None
    progress: float | None = None
    message: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    updated_at: datetime | None = None
    finished_at: datetime | None = None
    observed_at: datetime
    result: Result | None = None
    error: Failure | None = None
    subtasks: tuple[Task, ...] = ()
    external_id: str | None = None
    parent_id: str | None = None
    retry_of: str | None = None
    restarts: int | None = None
    raw: Mapping[str, Any] = Field(default_factory=dict, repr=False)


class Poll(Model):
    latency: float | None = None
    interval: float | None = None
    at_most: float = 300.0


class Retry(Model):
    attempts: int = 3
    first: float = 0.5
    at_most: float = 20.0


class Settings(Model):
    api_key: SecretStr
    base_url: str | None = None
    sync_url: str | None = None
    sandbox: bool = False
    region: str | None = None


class Common(Model):
    request_timeout: float = 30.0
    retry: Retry = Retry()
    poll: Poll = Poll()
    requests_per_second: float | None = None
    max_in_flight: int = 32
    max_body: int | None = None
    strict: bool = False
    allow_http: bool = False
    ca_bundle: str | None = None
    proxy: SecretStr | None = None
    webhook_secrets: tuple[SecretStr, ...] = ()
    user_agent_suffix: str | None = None


# What `tb.connect` does: validate settings, and open a session.
connected = (Settings(api_key=SecretStr("k" * 20)), Common(), requests.Session())
