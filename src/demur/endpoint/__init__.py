"""OpenAI-compatible endpoints: judges that are asked there, and servers that are evaluated."""

from demur.endpoint.client import EndpointClient
from demur.endpoint.requests import (
    KEY_VARIABLE,
    Answer,
    AnswerKind,
    Asked,
    AsksEndpoint,
    ChangedOptions,
    EndpointSettings,
    Ledger,
    Message,
    Request,
    SamplingOptions,
    TokenUsage,
)

__all__ = [
    "KEY_VARIABLE",
    "Answer",
    "AnswerKind",
    "Asked",
    "AsksEndpoint",
    "ChangedOptions",
    "EndpointClient",
    "EndpointSettings",
    "Ledger",
    "Message",
    "Request",
    "SamplingOptions",
    "TokenUsage",
]
