"""Settings of a model folder in a form that older versions of transformers, and others, read too.

transformers 5 keeps all about rotary positions in `rope_parameters`, which version 4 passes over:
it then takes a base of 10,000 for every model, and says nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demur.files import read_json, write_json

_FULL, _SLIDING = "full_attention", "sliding_attention"
_TOKENIZER = "tokenizer_config.json"
_FACTORS = ("short_factor", "long_factor")


def add_older_names(config: dict[str, Any]) -> None:
    """Add what version 4 reads to a configuration, beside what version 5 reads.

    Args:
        config: content of `config.json`; it is changed.
    """
    for part in [config, config.get("text_config")]:
        if isinstance(part, dict):
            _add_rotary(part)
            if isinstance(part.get("dtype"), str):
                part["torch_dtype"] = part["dtype"]


def write_known_tokenizer(folder: Path) -> None:
    """Name the tokenizer's class, and its special tokens, as version 4 knows them.

    Args:
        folder: folder with the tokenizer's files.
    """
    file = folder / _TOKENIZER
    settings: dict[str, Any] = read_json(file)
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    settings.pop("backend", None)
    write_json(file, settings)


def _add_rotary(config: dict[str, Any]) -> None:
    found = config.get("rope_parameters")
    if not isinstance(found, dict):
        return
    by_layer = {name: one for name, one in found.items() if isinstance(one, dict)}
    rotary = by_layer.get(_FULL, {}) if by_layer else found
    local = by_layer.get(_SLIDING, {}).get("rope_theta")
    if local is not None:
        config.setdefault("rope_local_base_freq", local)
    for name in ("rope_theta", "partial_rotary_factor"):
        if name in rotary:
            config.setdefault(name, rotary[name])
    if rotary.get("rope_type", "default") != "default":
        scaling = {name: value for name, value in rotary.items() if name != "rope_theta"}
        if config.get("model_type") == "phi3" and rotary["rope_type"] == "longrope":
            # Version 4 takes exactly these for this model, under these names.
            factors = {name: scaling[name] for name in _FACTORS if name in scaling}
            scaling = {"type": "longrope", **factors}
        config.setdefault("rope_scaling", scaling)
