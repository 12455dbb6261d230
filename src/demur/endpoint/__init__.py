"""OpenAI-compatible endpoints: judges that are asked there, and servers that are evaluated."""

from demur.endpoint.client import EndpointClient
from demur.endpoint.requests import (
    Answer,
    EndpointSettings,
    Message,
    Request,
    SamplingOptions,
    TokenUsage,
)

__all__ = [
    "Answer",
    "EndpointClient",
    "EndpointSettings",
    "Message",
    "Request",
    "SamplingOptions",
    "TokenUsage",
]
