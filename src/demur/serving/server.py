"""Serve prompts until the process is told to end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping

import uvicorn

from demur.errors import DemurError
from demur.serving.app import Proxy
from demur.serving.conversation import Manner
from demur.serving.probing import check_rows, find_manner, find_model
from demur.serving.prompts import ServedPrompt
from demur.serving.settings import ServeSettings
from demur.serving.upstream import Upstream

_SECONDS_TO_FINISH = 30


async def prepared(
    prompts: Mapping[str, ServedPrompt], settings: ServeSettings, wanted: str | None = None
) -> tuple[str, Manner]:
    """The model at the server and how it writes a conversation, with every prompt tried once.

    Args:
        prompts: what is to be served.
        settings: where the server is.
        wanted: name of the model at the server; None for the only one.

    Raises:
        DemurError: the server cannot open conversations with the prompts.
    """
    async with Upstream(settings) as upstream:
        model = await find_model(upstream, wanted)
        manner = await find_manner(upstream, model)
        for prompt in prompts.values():
            await check_rows(upstream, model, manner, prompt)
    return model, manner


def serve(
    prompts: Mapping[str, ServedPrompt],
    settings: ServeSettings,
    *,
    host: str,
    port: int,
    served_model: str | None = None,
    told: Callable[[str, str], None],
) -> None:
    """Serve prompts until Ctrl-C or SIGTERM; answers under way are finished first.

    Args:
        prompts: what is served, by name.
        settings: where the server behind is and within which bounds users are answered.
        host: address to listen at.
        port: port to listen at; 0 for a free one.
        served_model: name of the model at the server behind; None for the only one.
        told: takes the address and the name of the model once users can ask.

    Raises:
        DemurError: the server behind cannot be used, or the port is taken.
    """
    model, manner = asyncio.run(prepared(prompts, settings, served_model))
    with _listening(host, port) as listening:
        config = uvicorn.Config(
            Proxy(prompts, settings, model, manner).application(),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_SECONDS_TO_FINISH,
        )
        shown = f"[{host}]" if ":" in host else host
        told(f"http://{shown}:{listening.getsockname()[1]}", model)
        uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DemurError(
            f"Cannot listen at {host!r:.100}, port {port} ({reason}): choose another --host or "
            "--port."
        ) from None
