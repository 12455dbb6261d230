"""How much memory a model takes, told from its files before it is loaded or downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from demur.chat.catalog import CATALOG, DEFAULT_MODEL
from demur.chat.hub import weights_on_hub
from demur.chat.settings import LoadSettings
from demur.errors import DemurError
from demur.hub import HubModel

_BYTES_IN_FILE = 2.0
_BYTES_IN_GGUF = 0.6
"""Bytes of a weight in most safetensors files, and in GGUF files of 4 to 5 bits."""

_BYTES_PACKED = 0.7
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

_WORK = 1.3
"""What activations, keys and values add."""


def memory_of(settings: LoadSettings, *, on_gpu: bool, at_work: bool = True) -> int | None:
    """Bytes of memory that a model takes, about.

    Args:
        settings: which model, and how it computes.
        on_gpu: whether it runs on a GPU, where `auto` is bfloat16; else float32 is assumed.
        at_work: whether what the work adds to the weights is counted.

    Returns:
        An estimate from the sizes of the files; None where these cannot be found out.
    """
    try:
        files = _files(settings.model or DEFAULT_MODEL)
    except (DemurError, OSError, ValueError):
        return None
    weights = sum(
        size / (_BYTES_IN_GGUF if name.endswith(".gguf") else _BYTES_IN_FILE)
        for name, size in files.items()
    )
    auto = 2 if on_gpu else 4
    each = _BYTES_PACKED if settings.quantization else _BYTES.get(settings.dtype, auto)
    return int(weights * each * (_WORK if at_work else 1)) or None


def _files(model: str) -> Mapping[str, int]:
    """The files with a model's weights, and the bytes of each."""
    if model in CATALOG:
        return {CATALOG[model].file_name: CATALOG[model].size}
    path = Path(model).expanduser()
    if path.is_dir():
        found = list(path.glob("*.safetensors")) or list(path.glob("*.gguf"))
        return {one.name: one.stat().st_size for one in found}
    if path.is_file():
        return {path.name: path.stat().st_size}
    on_hub = HubModel.parse(model)
    return {} if on_hub is None else weights_on_hub(on_hub)
