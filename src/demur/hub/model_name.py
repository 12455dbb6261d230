"""The name of a model on the hub as people write it: with a revision, a file, or as an address."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from demur.hub.name import HubName

_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co", "hf-mirror.com")
_SCHEMES = ("hf://", "hf:")
_FILE = r"(?:[\w.+-]+/)*[\w.+-]+\.gguf"
_NAME = re.compile(
    rf"(?P<name>[^/:@]+/[^/:@]+(?:@[^:]+?)?)(?:/(?P<file>{_FILE})|:(?P<quantization>\w[\w.-]*))?"
)


@dataclass(frozen=True)
class HubModel:
    """A model on the hub: a repository, or a GGUF file in one.

    Attributes:
        name: the repository, and which state of it.
        file: path of the GGUF file in it, or None.
        quantization: what tells the GGUF file by its name, for example `Q4_K_M`, or None.
    """

    name: HubName
    file: str | None = None
    quantization: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubModel | None:
        """The model that a text names, or None where it cannot name one.

        Args:
            text: `ORG/NAME`, `ORG/NAME@REVISION`, `ORG/NAME:Q4_K_M`, `ORG/NAME/FILE.gguf`, or the
                address of the model's page or of a file on it. Slashes at the end do not count.
        """
        for scheme in _SCHEMES:
            text = text.removeprefix(scheme)
        if (address := _in_address(text)) is not None:
            text = address
        match = _NAME.fullmatch(text.rstrip("/"))
        name = HubName.parse(match["name"]) if match is not None else None
        if match is None or name is None or ".." in (match["file"] or "").split("/"):
            return None
        if match["file"] is None and name.repository.endswith(".gguf"):  # a file that is not there
            return None
        return cls(name, match["file"], match["quantization"])

    def __str__(self) -> str:
        if self.file is not None:
            return f"{self.name}/{self.file}"
        return str(self.name) if self.quantization is None else f"{self.name}:{self.quantization}"


def _in_address(text: str) -> str | None:
    """The name in the address of a page or file on the hub; None for another text."""
    address = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return None
    own = urlsplit(os.environ.get("HF_ENDPOINT") or "").hostname
    if host not in (*_HOSTS, own) or parts.scheme not in ("http", "https"):
        return None
    path = [unquote(part) for part in parts.path.split("/") if part]
    path = path[1:] if path[:1] == ["models"] else path
    name, rest = "/".join(path[:2]), path[2:]
    if rest[:1] and rest[0] in ("tree", "blob", "resolve", "raw", "commit") and len(rest) > 1:
        name, rest = name if rest[1] == "main" else f"{name}@{rest[1]}", rest[2:]
    # Another page of the model, or a file of a model that is no GGUF file, names the model.
    return "/".join([name, *rest]) if rest[-1:] and rest[-1].endswith(".gguf") else name
