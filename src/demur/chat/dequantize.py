"""GGUF files: unpacked once into a dense copy in the cache, opened from there ever after.

Unpacking takes seconds. Opening the copy maps it into memory instead of reading it, and
takes a fraction of a second.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from demur.chat.checkpoint import (
    freeze,
    out_of_memory,
    require_memory,
    samples_of,
    weight_files,
)
from demur.chat.configuration import load_config
from demur.chat.download import alone, file_sha256
from demur.chat.gguf_header import damaged, read_header
from demur.chat.gguf_reading import read_fast
from demur.chat.weight_checks import check_complete, check_numbers, check_tables
from demur.chat.weights_file import require_weights_space
from demur.errors import DemurError, first_line
from demur.files import DISK_FULL, cache_directory, write_json
from demur.progress import Progress, SilentStage

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = "model.safetensors"
"""Name of the file with the weights, as transformers calls it."""

_SAMPLE = 1 << 20
# The settings of a saved tokenizer that its class does not work out from tokenizer.json itself.
_TOKENIZER_SETTINGS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "extra_special_tokens",
    "model_max_length",
    "padding_side",
    "truncation_side",
    "clean_up_tokenization_spaces",
    "add_prefix_space",
)


def gguf_fingerprint(file: Path) -> str:
    """SHA-256 over a GGUF file's size and samples (`samples_of`), its first and last MiB whole."""
    digest = hashlib.sha256(f"{file.stat().st_size}\0".encode())
    for piece in samples_of(file, _SAMPLE):
        digest.update(piece)
    return digest.hexdigest()


def dequantized_folder(
    file: Path, key: str, name: str, dtype: torch.dtype, progress: Progress
) -> Path:
    """The folder with the dense copy of a GGUF file, made if the cache has none.

    Args:
        file: the GGUF file.
        key: identifies its content.
        name: for messages.
        dtype: of the copy.

    Raises:
        DemurError: `file` is no GGUF file, is damaged or of an unknown architecture, accelerate
            is missing, or the disk is full.
    """
    root = cache_directory() / "dequantized"
    folder = root / f"{key[:16]}-{str(dtype).removeprefix('torch.')}"
    if _is_usable(folder):
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with alone(folder.with_name(folder.name + ".lock"), name, progress):
        if _is_usable(folder):
            return folder
        temporary = folder.with_name(folder.name + ".new")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        header = read_header(file, name)
        try:
            with progress.stage(f"Unpacking {name} (once)", 2) as stage:
                stage.note("weights")
                with read_fast(file, header, name, temporary / WEIGHTS):
                    with _explained(name):
                        model = _unpack(file, name, dtype, temporary / WEIGHTS)
                    stage.advance()
                    stage.note("tokenizer")
                    states = _write(model, file, name, temporary)
                write_json(_states_file(folder), states)
                temporary.replace(folder)
                stage.advance()
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _write(
    model: PreTrainedModel, file: Path, name: str, folder: Path
) -> dict[str, dict[str, object]]:
    """Write a model and the tokenizer of its GGUF file; the states of the files by their names."""
    if (folder / WEIGHTS).exists():
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        if model.can_generate():
            model.generation_config.save_pretrained(folder)
    else:
        require_weights_space(folder.parent, model.num_parameters(), model.dtype, name)
        model.save_pretrained(folder)
    with ThreadPoolExecutor(1) as other:
        # Meanwhile the tokenizer is made, which keeps one thread busy.
        weights = other.submit(_states_of, list(folder.iterdir()))
        with _explained(name):
            tokenizer = _tokenizer(file)
        tokenizer.save_pretrained(folder)
        states = weights.result()
    return states | _states_of([one for one in folder.iterdir() if one.name not in states])


def _is_usable(folder: Path) -> bool:
    """Whether the copy is there, and none of its files was changed since it was written."""
    if not (folder / "config.json").is_file() or not (folder / "tokenizer.json").is_file():
        return False
    try:
        recorded = json.loads(_states_file(folder).read_text(encoding="utf-8"))
        return {file.name for file in folder.iterdir()} == set(recorded) and all(
            _is_unchanged(folder / name, recorded[name]) for name in recorded
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False


# Hashing gigabytes takes seconds, too long for every start. So a file is hashed again only where
# its size or times differ from what they were when it was written. Nothing sets the time of the
# last change (ctime) back, as copying a file over another one does with the other (mtime).


def _states_file(folder: Path) -> Path:
    return folder.with_name(folder.name + ".states.json")


def _states_of(files: Sequence[Path]) -> dict[str, dict[str, object]]:
    return {file.name: {**_state(file), "sha256": _sha256(file)} for file in files}


def _is_unchanged(file: Path, recorded: dict[str, object]) -> bool:
    sha256 = recorded["sha256"]
    return {**_state(file), "sha256": sha256} == recorded or _sha256(file) == sha256


def _state(file: Path) -> dict[str, object]:
    status = file.stat()
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
    }


def _sha256(file: Path) -> str:
    return file_sha256(file, SilentStage())


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn the errors of readers into one line, with the model's name."""
    try:
        yield
    except (DemurError, ImportError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        # Readers of damaged files fail in any way, and those in Rust with bare Exceptions.
        if "allocate memory" in str(error):
            raise out_of_memory(name, "it ran out while unpacking") from error
        if "ignore_mismatched_sizes" in str(error):
            raise damaged(name, "its weights have other shapes than its metadata say") from error
        raise DemurError(
            f"{name} cannot be read: the GGUF file is damaged or transformers does not know its "
            f"kind ({first_line(error)}); download it again or choose another."
        ) from error


def _unpack(file: Path, name: str, dtype: torch.dtype, weights: Path) -> PreTrainedModel:
    """The model of a GGUF file; its weights may be in `weights` already, and checked."""
    transformers: Any = importlib.import_module("transformers")  # hardly typed
    if not transformers.utils.is_accelerate_available():
        raise DemurError(
            f"Unpacking the GGUF file {name} needs accelerate: run `pip install accelerate`."
        )
    options: dict[str, Any] = {}
    if hasattr(transformers, "GgufConfig"):  # before it existed, GGUF was always dequantized
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model: PreTrainedModel
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        str(file.parent),
        gguf_file=file.name,
        dtype=dtype,
        local_files_only=True,
        output_loading_info=True,
        **options,
    )
    check_complete(loading, name)
    if weights.exists():
        check_tables(model, name)
    else:
        check_numbers(model, name)
    return model


def _tokenizer(file: Path) -> PreTrainedTokenizerBase:
    transformers: Any = importlib.import_module("transformers")
    tokenizer: PreTrainedTokenizerBase = transformers.AutoTokenizer.from_pretrained(
        str(file.parent), gguf_file=file.name, local_files_only=True
    )
    return tokenizer


def open_dequantized(
    folder: Path, name: str, dtype: torch.dtype, device: torch.device
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a dense copy. On the processor its weights stay in the file, mapped into memory."""
    from safetensors.torch import load_file

    transformers: Any = importlib.import_module("transformers")  # hardly typed
    config = load_config(folder, name, trust_remote_code=False)
    weights: dict[str, torch.Tensor] = {}
    files = weight_files(folder, name)
    if device.type != "cpu":
        require_memory(sum(file.stat().st_size for file in files), device, name)
    for file in files:
        weights.update(load_file(file))
    # Given a state dict, from_pretrained takes its tensors as they are instead of copying them.
    model, loading = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
        None, config=config, state_dict=weights, dtype=dtype, output_loading_info=True
    )
    check_complete(loading, name)
    if (folder / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(
            folder, local_files_only=True
        )
    model.to(device)
    return freeze(model), _open_tokenizer(folder)


def _open_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    # AutoTokenizer would parse the file several times over, a second for a large vocabulary.
    transformers: Any = importlib.import_module("transformers")
    saved = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings = {key: saved[key] for key in _TOKENIZER_SETTINGS if saved.get(key) is not None}
    template = folder / "chat_template.jinja"
    if template.is_file():
        settings["chat_template"] = template.read_text(encoding="utf-8")
    tokenizer: PreTrainedTokenizerBase = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), name_or_path=str(folder), **settings
    )
    return tokenizer
