"""Which model is loaded, and how: the settings that all commands share."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from demur.chat.catalog import DEFAULT_MODEL

Own = TypeVar("Own", bound="LoadSettings")


class LoadSettings(BaseModel):
    """The model and the machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = Field(
        default=None,
        description="hub name (ORG/NAME, with @REVISION or :Q4_K_M), local folder, GGUF file or "
        "catalog name of the model",
        json_schema_extra={"argument": True, "default": DEFAULT_MODEL},
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="number format of the computation; auto takes bfloat16 where the machine "
        "multiplies it natively, else float32",
    )
    device: str = Field(
        default="best",
        description="device of the computation: cpu, cuda, cuda:N, mps, auto (spreads a large "
        "model over all of them) or best (the fastest one)",
    )
    quantization: Literal["4bit"] | None = Field(
        default=None, description="load the weights in 4 bits; needs demur[large]"
    )
    prefix_sharing: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="compute the common beginning of all conversations only once; auto does so "
        "if a check finds the same results",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="run code that the model brings along; only for models that you trust",
    )

    chat_template: str | None = Field(
        default=None,
        description="file with a Jinja chat template, for a model that comes without one",
        json_schema_extra={"default": "the model's own"},
    )

    def like(self: Own, other: LoadSettings) -> Own:
        """These settings, with the model of others and how it computes where nothing was chosen.

        Whether code of the model is run is never taken from others.
        """
        default = LoadSettings()
        return self.model_copy(
            update={
                name: getattr(other, name)
                for name in ("model", "dtype", "quantization", "prefix_sharing", "chat_template")
                if getattr(self, name) == getattr(default, name)
            }
        )


class WorkLoadSettings(LoadSettings):
    """The model and the machine.

    Attributes:
        sample_at: address of a server that samples responses, or None.
    """

    sample_at: str | None = Field(
        default=None,
        description="address of a vLLM server with the same weights, for example "
        "http://localhost:8000/v1, that samples all responses; everything else is computed here. "
        "It is started with --enable-prompt-embeds; needs demur[endpoint]",
    )

    @model_serializer(mode="wrap")
    def _stored(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As before there were such servers where there is none: fingerprints stay the same."""
        found: dict[str, Any] = handler(self)
        if self.sample_at is None:
            found.pop("sample_at", None)
        return found
