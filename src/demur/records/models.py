"""What is recorded of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from demur.records.fingerprint import fingerprint


@dataclass(frozen=True)
class ModelRecord:
    """A model and how it computes.

    Attributes:
        name: name, path or hub name that the model was asked for by; for people.
        identity: fingerprint of where the weights come from, for example `sha256:...`.
        dtype: number format of the computation: `float32`, `bfloat16` or `float16`.
        device: device of the computation, for example `cpu` or `cuda:0`.
        quantization: `4bit`, or None.
        chat_template: fingerprint of the chat template and its options.
        prefix_sharing: whether the opening of conversations is computed once for all of them. The
            other path gives the same up to rounding, which can change a sampled response.
        sampler: what samples responses where the model here does not: `vllm`, a server with the
            same weights; else None.
    """

    name: str
    identity: str
    dtype: str
    device: str
    quantization: str | None
    chat_template: str
    prefix_sharing: bool
    sampler: Literal["vllm"] | None = None

    @model_serializer(mode="wrap")
    def _stored(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As before there were samplers where there is none, so that fingerprints stay the same."""
        found: dict[str, Any] = handler(self)
        if self.sampler is None:
            found.pop("sampler", None)
        return found

    @property
    def fingerprint(self) -> str:
        """Fingerprint of everything that the model's answers depend on; the name is left out."""
        sampler = {} if self.sampler is None else {"sampler": self.sampler}
        return fingerprint(
            "model",
            identity=self.identity,
            dtype=self.dtype,
            device=self.device,
            quantization=self.quantization,
            chat_template=self.chat_template,
            prefix_sharing=self.prefix_sharing,
            **sampler,
        )


@dataclass(frozen=True)
class ServerRecord:
    """A model behind an OpenAI-compatible server.

    Attributes:
        name: name of the model at the server.
        address: base URL of the server, without user name, password or query.
    """

    name: str
    address: str

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the server and the model's name there."""
        return fingerprint("server", name=self.name, address=self.address)


@dataclass(frozen=True)
class FileRecord:
    """A file of responses.

    Attributes:
        name: name of the file without its folder; prompts without a name are called after it.
        sha256: SHA-256 of the file's content (64 hex digits).
    """

    name: str
    sha256: str

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the content and of the name that its rows may take over."""
        return fingerprint("file of responses", name=self.name, sha256=self.sha256)


@dataclass(frozen=True)
class FilesRecord:
    """Files of responses that exist already.

    Attributes:
        files: the files in their order.
    """

    files: tuple[FileRecord, ...]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all files in their order."""
        return fingerprint("files of responses", files=[file.fingerprint for file in self.files])
