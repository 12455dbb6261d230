"""OpenAI-compatible endpoints, whoever runs them."""

from demur.endpoint.client import Answer, EndpointClient, EndpointSettings, Request, TokenUsage

__all__ = ["Answer", "EndpointClient", "EndpointSettings", "Request", "TokenUsage"]
