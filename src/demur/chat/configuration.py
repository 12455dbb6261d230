"""A model folder's config.json: read, and checked before anything is built from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from demur.chat.checkpoint import missing_weights
from demur.errors import DemurError
from demur.files import read_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

MOST_BYTES = 1 << 24
"""Largest size of a config.json."""

MOST_COUNT = 1_000_000
"""Largest count of layers, heads, labels and the like: a list may be made of so many of them."""

MOST_CONTEXT = 1 << 27
"""Largest number of tokens that a conversation may hold (134 million)."""

_SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "vocab_size",
    "num_attention_heads",
    "max_position_embeddings",
)
_MOST_SIZE = 1 << 40


def load_config(folder: Path, name: str, trust_remote_code: bool) -> PreTrainedConfig:
    """The configuration of a causal language model.

    Raises:
        DemurError: there is none, it is another kind of model, or it needs code of its own.
    """
    config = _read(folder, name, trust_remote_code)
    _check_causal(config, name, trust_remote_code)
    return config


def load_classifier_config(folder: Path, name: str) -> PreTrainedConfig:
    """The configuration of a sequence classifier with two labels or more.

    Raises:
        DemurError: there is none, it is another kind of model, or it needs code of its own.
    """
    config = _read(folder, name, trust_remote_code=False)
    listed = config.architectures
    saved_as = [str(each) for each in listed] if isinstance(listed, list) else []
    if not any(each.endswith("ForSequenceClassification") for each in saved_as):
        what = saved_as[0] if saved_as else config.model_type
        raise DemurError(f"{name} is no sequence classifier ({what:.100}); give one that is.")
    labels = len(config.id2label or {})
    if labels < 2:
        raise DemurError(f"{name} has only {labels} label; give a classifier with two or more.")
    if config.problem_type == "multi_label_classification":
        raise DemurError(f"{name} gives several labels at once; give a classifier that gives one.")
    return config


def _read(folder: Path, name: str, trust_remote_code: bool) -> PreTrainedConfig:
    from transformers import AutoConfig

    file = folder / "config.json"
    if not file.is_file():
        raise missing_weights(name, (path.name for path in folder.iterdir()))
    try:
        raw = json.loads(read_bytes(file, MOST_BYTES).decode("utf-8"))
        has_code = bool(raw.get("auto_map"))
        weights = raw.get("transformers_weights")
    except (ValueError, AttributeError, RecursionError):
        raise DemurError(f"{name}: config.json is damaged; download the model again.") from None
    _check_counts(raw, name)
    if weights is not None and not str(weights).endswith((".safetensors", ".index.json")):
        raise missing_weights(name, [str(weights)])
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except ValueError as error:
        if has_code and not trust_remote_code:
            raise _needs_code(name) from error
        raise DemurError(
            f"{name}: this transformers does not know its kind of model "
            f"({raw.get('model_type')!r:.60}); upgrade transformers or choose another model."
        ) from error
    except Exception as error:  # each kind of model checks its values in its own way
        raise _odd(name, " ".join(str(error).split())) from error
    _check_sizes(config, name)
    return config


def check_layers(config: PreTrainedConfig, tensors: int, name: str) -> None:
    """Check that a configuration does not ask for more layers than the weights can fill.

    Every layer has a tensor at least, and building millions of empty ones would take for ever.

    Raises:
        DemurError: it does.
    """
    layers = getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > tensors:
        raise _odd(name, f"num_hidden_layers is {layers}, and the weights are {tensors} tensors")


def _check_counts(raw: object, name: str) -> None:
    """Check the counts in a configuration, before its kind of model makes anything of them."""
    waiting = [raw]
    while waiting:
        values = waiting.pop()
        for key, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, (dict, list)):
                waiting += value if isinstance(value, list) else [value]
            elif isinstance(value, (int, float)) and value > MOST_COUNT and _is_count(key):
                raise _odd(name, f"{key} is {value}")


def _is_count(key: str) -> bool:
    return key.startswith("num_") or "layer" in key


def _check_sizes(config: PreTrainedConfig, name: str) -> None:
    text = config.get_text_config(decoder=True)
    for key in _SIZES:
        value = getattr(text, key, None)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            continue  # some kinds of models have a list here, one for each layer
        most = MOST_CONTEXT if key == "max_position_embeddings" else _MOST_SIZE
        if value is not None and not 0 < value < most:
            raise _odd(name, f"{key} is {value}")


def _odd(name: str, why: str) -> DemurError:
    return DemurError(
        f"{name}: config.json cannot be right ({why:.200}); download the model again."
    )


def _needs_code(name: str) -> DemurError:
    return DemurError(
        f"{name} runs code of its own; if you trust its authors, allow that (trust_remote_code)."
    )


def _check_causal(config: PreTrainedConfig, name: str, trust_remote_code: bool) -> None:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    kind = type(config)
    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        if kind in MODEL_FOR_CAUSAL_LM_MAPPING or trust_remote_code:
            return
        raise _needs_code(name)
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING and not config.is_encoder_decoder
    if kind in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        causal = False  # BERT and its like count as causal only when configured as decoders
    endings = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    listed = config.architectures
    saved_as = [str(each) for each in listed] if isinstance(listed, list) else []
    if saved_as and not any(architecture.endswith(endings) for architecture in saved_as):
        causal = False
    if not causal:
        what = saved_as[0] if saved_as else config.model_type
        raise DemurError(f"{name} is no causal language model ({what}); give a chat model.")
