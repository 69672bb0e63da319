"""Everything that the author of a provider imports.

A provider translates: each of its operations is a flow (`Flow`) that builds requests from a shared id and a `Task` from
the responses. It imports no HTTP library and reads no clock. Retries, the life of a credential, deadlines, rate limits,
the check that the vendor answered about the right task, threads and asyncio are the library's business.
"""

from taskbridge._lazy import LazyFields, LazyPages
from taskbridge.provider.base import CodeTable, ErrorDetails, Provider, ProviderSettings, StatusTable, no_requests
from taskbridge.provider.capabilities import (
    BEARER_TOKEN,
    PLAIN_ID,
    Accepts,
    Capabilities,
    Credential,
    Delivery,
    Downloads,
    IdKind,
    Webhooks,
)
from taskbridge.provider.clock import clip_seconds
from taskbridge.provider.http import Base64, Body, Flow, Form, FormFile, Request, Response, Upload
from taskbridge.provider.json import read_json
from taskbridge.provider.options import NEUTRAL_OPTIONS, NeutralOptions, OptionTable, TextFormat
from taskbridge.provider.payload import NO_TIME, Payload, State, StateTable, path_id, read_state, read_time
from taskbridge.provider.results import GeneratedFile, as_json, as_text, generated_files
from taskbridge.provider.signatures import SVIX_PREFIX, TOLERANCE, is_in_url, verify_hex_hmac, verify_svix
from taskbridge.provider.submission import (
    NATIVE,
    Document,
    Link,
    Listing,
    ListPolling,
    Page,
    Query,
    Source,
    Stored,
    Submission,
    safe_name,
)

__all__ = [
    "BEARER_TOKEN",
    "NATIVE",
    "NEUTRAL_OPTIONS",
    "NO_TIME",
    "PLAIN_ID",
    "SVIX_PREFIX",
    "TOLERANCE",
    "Accepts",
    "Base64",
    "Body",
    "Capabilities",
    "CodeTable",
    "Credential",
    "Delivery",
    "Document",
    "Downloads",
    "ErrorDetails",
    "Flow",
    "Form",
    "FormFile",
    "GeneratedFile",
    "IdKind",
    "LazyFields",
    "LazyPages",
    "Link",
    "ListPolling",
    "Listing",
    "NeutralOptions",
    "OptionTable",
    "Page",
    "Payload",
    "Provider",
    "ProviderSettings",
    "Query",
    "Request",
    "Response",
    "Source",
    "State",
    "StateTable",
    "StatusTable",
    "Stored",
    "Submission",
    "TextFormat",
    "Upload",
    "Webhooks",
    "as_json",
    "as_text",
    "clip_seconds",
    "generated_files",
    "is_in_url",
    "no_requests",
    "path_id",
    "read_json",
    "read_state",
    "read_time",
    "safe_name",
    "verify_hex_hmac",
    "verify_svix",
]
