"""The application that users reach: chat completions, the list of prompts, health and counts."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NoReturn

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from demur.serving.conversation import Manner, RequestRefused, opened_request
from demur.serving.metrics import LEFT, Metrics
from demur.serving.prompts import ServedPrompt
from demur.serving.relay import Relay, refusal
from demur.serving.settings import ServeSettings
from demur.serving.upstream import Upstream

_SECONDS_FOR_A_BODY = 60.0
_SECONDS_FOR_HEALTH = 5.0
_CHAT = "/v1/chat/completions"


class Proxy:
    """Opens the conversations of users with prompts, and asks the server behind.

    Args:
        prompts: what is served, by name.
        settings: where the server is and within which bounds users are answered.
        model: name of the model at the server.
        manner: how the server writes a conversation.
    """

    def __init__(
        self,
        prompts: Mapping[str, ServedPrompt],
        settings: ServeSettings,
        model: str,
        manner: Manner,
    ) -> None:
        self._prompts, self._settings = dict(prompts), settings
        self._model, self._manner = model, manner
        self._metrics = Metrics()
        self._created = int(time.time())
        self._upstream: Upstream | None = None

    def application(self) -> Starlette:
        """The application, for any ASGI server."""
        routes = [
            Route("/health", self._health),
            Route("/metrics", self._counts),
            Route("/v1/models", self._models),
            Route("/v1/models/{prompt}", self._model_named),
            Route(_CHAT, self._chat, methods=["POST"]),
            Route("/{prompt}/v1/models", self._models),
            Route(f"/{{prompt}}{_CHAT}", self._chat, methods=["POST"]),
        ]
        return Starlette(
            routes=routes,
            lifespan=self._connected,
            exception_handlers={HTTPException: _no_such_place, Exception: _own_mistake},
        )

    @asynccontextmanager
    async def _connected(self, _: Starlette) -> AsyncIterator[None]:
        async with Upstream(self._settings) as self._upstream:
            yield

    async def _chat(self, request: Request) -> Response:
        assert self._upstream is not None
        if self._metrics.under_way >= self._settings.concurrency:
            self._metrics.ended("", 503)
            return refusal(RequestRefused("Too many requests are under way.", 503), "1")
        self._metrics.under_way += 1
        name, left = "", True
        try:
            self._require_key(request)
            # The request is read before the prompt is looked for, which it may name.
            body = _decoded(await self._body(request))
            prompt = self._prompt_for(request.path_params.get("prompt"), body)
            name = prompt.name
            content = opened_request(body, prompt.data, self._manner, self._model)
            left = False
        except RequestRefused as refused:
            self._metrics.ended(name, refused.status)
            return refusal(refused)
        except ClientDisconnect:
            self._metrics.ended(name, LEFT)
            return Response()  # nobody reads it
        except RecursionError:
            self._metrics.ended(name, 400)
            return refusal(RequestRefused("The request is nested too deeply."))
        finally:
            self._metrics.under_way -= left

        def ended(status: int, first: float | None, whole: float) -> None:
            self._metrics.under_way -= 1
            self._metrics.ended(name, status)
            self._metrics.timed(name, first, whole)

        return Relay(self._upstream, content, self._settings.timeout, ended)

    async def _models(self, request: Request) -> Response:
        try:
            self._require_key(request)
            name = request.path_params.get("prompt")
            prompts = list(self._prompts.values()) if name is None else [self._named(name)]
        except RequestRefused as refused:
            return refusal(refused)
        return JSONResponse({"object": "list", "data": [self._listed(one) for one in prompts]})

    async def _model_named(self, request: Request) -> Response:
        try:
            self._require_key(request)
            return JSONResponse(self._listed(self._named(request.path_params["prompt"])))
        except RequestRefused as refused:
            return refusal(refused)

    async def _health(self, _: Request) -> Response:
        assert self._upstream is not None
        try:
            got = await self._upstream.got("GET", "models", seconds=_SECONDS_FOR_HEALTH)
        except RequestRefused as refused:
            return refusal(RequestRefused(str(refused), 503))
        if got.status != 200:
            return refusal(RequestRefused("The server behind is not ready.", 503))
        return JSONResponse({"status": "ok"})

    async def _counts(self, _: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    def _require_key(self, request: Request) -> None:
        wanted = self._settings.user_key.text
        if not wanted:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), wanted.encode())
        if scheme.lower() != "bearer" or not right:
            raise RequestRefused("The key is missing or wrong.", 401, "invalid_api_key")

    async def _body(self, request: Request) -> bytes:
        most = self._settings.most_bytes
        too_large = RequestRefused(f"The request is larger than {most:,} bytes.", 413)
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise RequestRefused("The request is compressed: send it as it is.", 415)
        # A page in a browser cannot send this kind to another place without being allowed to.
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RequestRefused("The request's Content-Type is not application/json.", 415)
        length = request.headers.get("content-length", "")
        if length.isdigit() and (len(length) > len(str(most)) or int(length) > most):
            raise too_large
        body = bytearray()
        try:
            with anyio.fail_after(_SECONDS_FOR_A_BODY):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise RequestRefused("The request did not come in time.", 408) from None
        return bytes(body)

    def _prompt_for(self, route: str | None, body: object) -> ServedPrompt:
        """The prompt that the route names, else the request's model, else the only one."""
        if route is not None:
            return self._named(route)
        asked = body.get("model") if isinstance(body, dict) else None
        if asked is None and len(self._prompts) == 1:
            return next(iter(self._prompts.values()))
        return self._named(asked)

    def _named(self, name: object) -> ServedPrompt:
        if isinstance(name, str) and name in self._prompts:
            return self._prompts[name]
        known = ", ".join(self._prompts)
        what = "The request names no model" if name is None else f"There is no model {name!r:.100}"
        raise RequestRefused(f"{what}: choose {known:.1000}.", 404, "model_not_found")

    def _listed(self, prompt: ServedPrompt) -> dict[str, object]:
        created = self._created
        return {"id": prompt.name, "object": "model", "created": created, "owned_by": "demur"}


def _decoded(body: bytes) -> object:
    try:
        found: object = json.loads(body, parse_constant=_no_number)
    except ValueError:
        raise RequestRefused("The request is no JSON.") from None
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


async def _no_such_place(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return refusal(RequestRefused(f"Only POST {_CHAT} and GET /v1/models are served.", status))


async def _own_mistake(_: Request, __: Exception) -> Response:
    return refusal(RequestRefused("The proxy failed.", 500))
