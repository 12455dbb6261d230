"""`demur serve`."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field
from rich.text import Text

from demur.cli.command import Command
from demur.cli.interrupts import own_handling
from demur.cli.screen import console
from demur.errors import DemurError

if TYPE_CHECKING:
    from demur.endpoint.key import Key

_USER_KEY, _SERVER_KEY = "DEMUR_SERVE_KEY", "VLLM_API_KEY"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ServeOptions(BaseModel):
    """What is served, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    run: tuple[str, ...] = Field(
        min_length=1,
        description="folders of finished runs or of saved trained prompts of one model, or "
        "organisation/name on the hub",
        json_schema_extra={"argument": True},
    )
    endpoint: str = Field(
        default="http://localhost:8000/v1",
        description="address of the vLLM server, which serves the unchanged model with "
        "--enable-prompt-embeds",
    )
    served_model: str | None = Field(
        default=None,
        description="name of the model at the vLLM server",
        json_schema_extra={"default": "the only one there"},
    )
    name: tuple[str, ...] = Field(
        default=(),
        description="name under which users ask for a prompt, once for each, in their order",
        json_schema_extra={"default": "the names of the prompts"},
    )
    host: str = Field(default="127.0.0.1", description="address to listen at; 0.0.0.0 for all")
    port: int = Field(
        default=8080, ge=0, le=65535, description="port to listen at; 0 for a free one"
    )
    key_variable: str = Field(
        default=_USER_KEY,
        description="environment variable with the key that users must send; without one, "
        "anybody who reaches the port may ask",
    )
    endpoint_key_variable: str = Field(
        default=_SERVER_KEY, description="environment variable with the key of the vLLM server"
    )
    timeout: float = Field(
        default=600.0,
        gt=0,
        le=86_400,
        description="seconds to wait for the next part of an answer from the vLLM server, and for "
        "a user to take it",
    )
    concurrency: int = Field(
        default=256,
        ge=1,
        le=10_000,
        description="number of requests under way at once; further ones are refused with status "
        "503",
    )


def run_serve(options: ServeOptions) -> None:
    """Serve until the process is told to end."""
    from demur.endpoint.address import Address
    from demur.serving import ServeSettings, served_prompts
    from demur.serving.settings import require_packages

    require_packages()
    settings = ServeSettings(
        address=Address(options.endpoint),
        key=_key(options.endpoint_key_variable, _SERVER_KEY),
        user_key=_key(options.key_variable, _USER_KEY),
        timeout=options.timeout,
        concurrency=options.concurrency,
    )
    prompts = served_prompts(options.run, options.name)

    from demur.serving.server import serve

    def told(address: str, model: str) -> None:
        console.print(f"Serving in front of {settings.address.place}, model {model!r}:")
        for name, prompt in prompts.items():
            trained = f", trained on {prompt.trained_on!r}" if prompt.trained_on else ""
            console.print(Text(f"{name}  ({prompt.rows} rows{trained})", style="bold"))
        console.print(
            "Users ask for a prompt as the model's name at the first address, or as a route:"
        )
        for place in (f"{address}/v1", f"{address}/{next(iter(prompts))}/v1"):
            console.print(Text(place, style="bold"), soft_wrap=True)
        for name in (name for name, prompt in prompts.items() if prompt.expects_text):
            console.print(
                f"{name} was trained behind your application's system text, which is not sent "
                "here: send it as the system message."
            )
        if not settings.user_key.text and options.host not in _LOOPBACK:
            console.print(
                f"No key is set in {options.key_variable}: anybody who reaches the port may ask."
            )

    # Ctrl-C and SIGTERM are the ways to end a server; answers under way are finished.
    with own_handling(signal.SIGINT, signal.SIGTERM):
        try:
            serve(
                prompts,
                settings,
                host=options.host,
                port=options.port,
                served_model=options.served_model,
                told=told,
            )
        except KeyboardInterrupt:
            console.print("Ended.")


def _key(variable: str, default: str) -> Key:
    """The key in a variable of the environment.

    Raises:
        DemurError: it cannot be sent, or a variable was chosen that holds none.
    """
    from demur.endpoint.key import Key

    key = Key.of(variable)
    if not key.text and variable != default:
        # The name is not shown: it may be the key itself.
        raise DemurError(
            "A variable that was chosen for a key holds none: set it, and give its name and not "
            "the key itself."
        )
    return key


SERVE = Command(
    verb="serve",
    settings=ServeOptions,
    run=run_serve,
    details="""
    Every conversation opens with the rows of a prompt, and the application's own system text
    follows. Each prompt has a name, which users give as the model, and a route, /NAME/v1. Needs
    demur[serve].

    The vLLM server must take embeddings (--enable-prompt-embeds) and be reachable by this command
    alone.""",
)
