"""Load a chat model from wherever it is, ready to run and frozen."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from demur import processes
from demur.bars import default_progress
from demur.chat.catalog import CATALOG
from demur.chat.checkpoint import (
    check_texts,
    explained_errors,
    fingerprint,
    list_weights,
    load_tokenizer,
    load_weights,
    missing_weights,
    quiet_libraries,
    weight_files,
)
from demur.chat.configuration import check_layers, load_config
from demur.chat.dequantize import dequantized_folder, gguf_fingerprint, open_dequantized
from demur.chat.dividing import device_of_process
from demur.chat.download import pull
from demur.chat.engine.forward import input_device
from demur.chat.gguf_header import GgufHeader, read_header, require_whole_model
from demur.chat.hardware import choose_device, choose_dtype
from demur.chat.hub import hub_snapshot
from demur.chat.naming import model_place
from demur.chat.templates import find_template
from demur.errors import DemurError
from demur.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


MOST_NAME = 200
"""Characters of a model's name in messages."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        model: in evaluation mode; no parameter requires a gradient.
        tokenizer: the model's own, always a fast one.
        name: for people.
        identity: the origin of the weights, the same on every machine that has the same weights:
            `sha256:...` (catalog), `organisation/model@commit` (hub), `gguf:...` or `folder:...`
            (hashes over samples of local files). It does not depend on device or dtype.
        device: where inputs belong.
        dtype: of the weights (of the computation, where they are quantized).
        dtype_reason: why this dtype, in a few words.
        folder: the configuration, tokenizer and weights as transformers saves them; of a GGUF file,
            its dense copy.
        gguf: the GGUF file that it was unpacked from, if any.
        quantization: `4bit`, or None.
        end_tokens: ids of tokens that end an answer, as a GGUF file names them.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    identity: str
    device: torch.device
    dtype: torch.dtype
    dtype_reason: str
    folder: Path
    gguf: Path | None = None
    quantization: str | None = None
    end_tokens: frozenset[int] = frozenset()


@dataclass(frozen=True)
class _Origin:
    """Where a model's files are: a GGUF file or a folder."""

    path: Path
    name: str
    identity: str
    key: str = ""  # of a GGUF file's content
    header: GgufHeader | None = None  # of a GGUF file


def load_model(
    spec: str | Path,
    *,
    dtype: str | None = None,
    device: str | None = None,
    quantization: str | None = None,
    trust_remote_code: bool = False,
    needs_template: bool = False,
    check: Callable[[PreTrainedTokenizerBase, str], object] | None = None,
    progress: Progress | None = None,
) -> LoadedModel:
    """Load a causal language model and its tokenizer.

    Of processes that were started together, each loads its part of the model.

    Args:
        spec: a catalog name, a GGUF file, a model folder, or the name of a model on the hub (see
            `HubModel`), tried in this order.
        dtype: float32, bfloat16 or float16; None chooses by the device.
        device: a torch device, `auto` to spread the model over all devices (needs accelerate), or
            None for the best one.
        quantization: `4bit` packs the weights with bitsandbytes.
        trust_remote_code: run code that the model brings along.
        needs_template: refuse a model without a chat template, before its weights are read.
        check: looks at the tokenizer and the model's name before any weight is read or fetched. The
            tokenizer is the one that is returned, but for a GGUF file: it has the chat template and
            no words.
        progress: told about downloads and unpacking.

    Raises:
        DemurError: whatever keeps the model from loading, in one line.
    """
    progress = progress or default_progress()
    spread = device == "auto"
    divided = processes.count() > 1
    if divided and (spread or quantization is not None):
        raise DemurError(
            "Several processes share the model already: leave out --device auto and --quantization."
        )
    chosen_device = (
        device_of_process(device) if divided else choose_device(None if spread else device)
    )
    chosen_dtype, reason = choose_dtype(dtype, chosen_device)
    _require_packages(spread, quantization)

    def look_at(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        if needs_template:
            find_template(tokenizer, name)
        if check is not None:
            check(tokenizer, name)

    known: dict[Path, PreTrainedTokenizerBase] = {}

    def open_tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase:
        if folder not in known:
            known[folder] = load_tokenizer(folder, name, trust_remote_code)
            look_at(known[folder], name)
        return known[folder]

    with explained_errors(str(spec)[:MOST_NAME]), quiet_libraries():
        origin = _find(spec, trust_remote_code, progress, open_tokenizer)
        folder = origin.path
        if origin.header is not None:
            require_whole_model(origin.header, origin.name)
            look_at(_wordless(origin.header.template), origin.name)
            folder = dequantized_folder(
                origin.path, origin.key, origin.name, chosen_dtype, progress
            )
        if origin.key and not (spread or divided) and quantization is None:
            model, tokenizer = open_dequantized(folder, origin.name, chosen_dtype, chosen_device)
        else:
            config = load_config(folder, origin.name, trust_remote_code)
            files = weight_files(folder, origin.name)
            check_layers(config, len(list_weights(files, origin.name).shapes), origin.name)
            tokenizer = open_tokenizer(folder, origin.name)
            model = load_weights(
                folder,
                origin.name,
                config,
                chosen_dtype,
                chosen_device,
                spread=spread,
                quantization=quantization,
                trust_remote_code=trust_remote_code,
            )
    if spread:
        chosen_device = input_device(model)
    progress.message(f"{origin.name}: {_short(chosen_dtype)} on {chosen_device}, {reason}")
    gguf = origin.path if origin.key else None
    how = (chosen_device, chosen_dtype, reason, folder, gguf, quantization)
    ends = origin.header.end_tokens if origin.header is not None else frozenset()
    return LoadedModel(model, tokenizer, origin.name, origin.identity, *how, ends)


def _wordless(template: str | None) -> PreTrainedTokenizerBase:
    """A tokenizer with a chat template alone, for a model that is still packed in its file."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0}, "<unk>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = template
    return tokenizer


def _require_packages(spread: bool, quantization: str | None) -> None:
    if quantization not in (None, "4bit"):
        raise DemurError(f"Unknown quantization {quantization!r}: the only one is 4bit.")
    if spread:
        _require_package("accelerate", "Device auto")
    if quantization is not None:
        _require_package("accelerate", "4bit")
        _require_package("bitsandbytes", "4bit")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _require_package(package: str, purpose: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise DemurError(f"{purpose} needs {package}: run `pip install 'demur[large]'`.")


def _find(
    spec: str | Path,
    trust_remote_code: bool,
    progress: Progress,
    open_tokenizer: Callable[[Path, str], object],
) -> _Origin:
    place = model_place(spec)
    if place is None:
        text = str(spec)
        model = CATALOG[text]
        file = pull(text, progress)
        header = read_header(file, text)
        return _Origin(file, text, f"sha256:{model.sha256}", model.sha256, header)
    if isinstance(place, Path):
        return _find_in_folder(place) if place.is_dir() else _gguf(place)
    name = str(place)
    found = hub_snapshot(
        place, trust_remote_code, progress, lambda folder: open_tokenizer(folder, name)
    )
    if found.path.is_file():
        return replace(_gguf(found.path), name=name)
    return _Origin(found.path, name, f"{place.name.repository}@{found.commit}")


def _gguf(file: Path) -> _Origin:
    file = file.resolve()
    header, key = read_header(file, file.stem), gguf_fingerprint(file)
    return _Origin(file, file.stem, f"gguf:{key}", key, header)


def _find_in_folder(folder: Path) -> _Origin:
    name = folder.resolve().name or str(folder)
    if not (folder / "config.json").is_file():
        files = sorted(folder.glob("*.gguf"))
        if len(files) == 1:
            return _gguf(files[0])
        if files:
            raise DemurError(f"{folder} holds {len(files)} GGUF files; give the path of one.")
        if (folder / "adapter_config.json").is_file():
            raise missing_weights(name, ["adapter_config.json"])
        raise DemurError(f"{folder} has no config.json; give a folder that save_pretrained wrote.")
    check_texts(folder, name)
    return _Origin(folder, name, f"folder:{fingerprint(folder, name)}")
