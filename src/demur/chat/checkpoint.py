"""Model folders as transformers saves them: check, fingerprint, load.

A folder is checked before transformers sees it, because transformers would fill weights that are
missing with random numbers, fall back to pickled ones, or explain a cut-off file in twenty lines.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partialmethod
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from demur import processes
from demur.chat.dividing import check_divisible, dividing_options
from demur.chat.hardware import available_memory
from demur.chat.weight_checks import (
    Weights,
    check_all_used,
    check_complete,
    check_numbers,
    check_weights,
    other_shapes,
)
from demur.errors import DemurError, first_line
from demur.files import DISK_FULL, read_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json")
_TEXTS = (
    *_TOKENIZER_FILES,
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "generation_config.json",
    "adapter_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)
_PACKS_FOR_CPU = "support_avx512bf16_for_cpu"  # of a 4-bit layer of bitsandbytes
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_SAMPLE, _CHUNK = 64 << 10, 1 << 20
_PIECES, _PIECE = 512, 4 << 10

MOST_HEADER = 100_000_000
"""Largest size in bytes of a safetensors header, as its own library bounds it, and of an index."""


MOST_TEXT = 1 << 27
"""Largest size in bytes of any other file of a model folder (134 MB), which are read whole."""


def check_texts(folder: Path, name: str) -> None:
    """Check the sizes of a model folder's files other than weights.

    Raises:
        DemurError: one is too large.
    """
    for file in (found for pattern in _TEXTS for found in folder.glob(pattern)):
        if file.stat().st_size > MOST_TEXT:
            raise DemurError(
                f"{name}: {file.name} is larger than {MOST_TEXT / 1e6:.0f} MB, the most that is "
                "read; download the model again."
            )


def weight_files(folder: Path, name: str) -> list[Path]:
    """The folder's safetensors files: the single one or those the index names.

    Raises:
        DemurError: there are none, or one is missing.
    """
    single, index = folder / _SINGLE, folder / _INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        raise missing_weights(name, (path.name for path in folder.iterdir()))
    try:
        names = sorted(set(json.loads(read_bytes(index, MOST_HEADER))["weight_map"].values()))
        files = [folder / Path(name).name for name in names]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise DemurError(f"{name}: {_INDEX} is damaged; download the model again.") from None
    if not files:
        raise DemurError(f"{name}: {_INDEX} names no weights; download the model again.")
    for file in files:
        if not file.is_file():
            raise DemurError(f"{name} lacks its weight file {file.name}; download the model again.")
    return files


def missing_weights(name: str, file_names: Iterable[str]) -> DemurError:
    """The error for a model without safetensors weights, by what it has instead."""
    names = list(file_names)
    if any(file.endswith(".gguf") for file in names):
        return DemurError(f"{name} holds GGUF files; give the path of one of them instead.")
    if "adapter_config.json" in names:
        return DemurError(f"{name} is an adapter; merge it into its model, save that and give it.")
    if any(file.endswith(_PICKLED) for file in names):
        return DemurError(
            f"{name} has pickled weights only, which demur does not load because they can run "
            "code; convert them to safetensors with save_pretrained."
        )
    return DemurError(f"{name} has no weights (no {_SINGLE} and no {_INDEX}); check the path.")


def list_weights(files: Iterable[Path], name: str) -> Weights:
    """The weights in safetensors files, as their headers list them.

    Raises:
        DemurError: a file is cut off or is no safetensors file.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    kinds: dict[str, str] = {}
    for file in files:
        try:
            with file.open("rb") as handle:
                length = int.from_bytes(handle.read(8), "little")
                if length > min(file.stat().st_size - 8, MOST_HEADER):
                    raise ValueError("the header is longer than the file, or than any")
                header: dict[str, Any] = json.loads(handle.read(length))
            header.pop("__metadata__", None)
            end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
            if 8 + length + end != file.stat().st_size:
                raise ValueError("the file is longer or shorter than its header says")
            for tensor, stored in header.items():
                shapes[tensor] = tuple(map(int, stored["shape"]))
                kinds[tensor] = str(stored["dtype"])
                if min(shapes[tensor], default=0) < 0:
                    raise ValueError("a negative dimension")
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            raise DemurError(
                f"{name}: {file.name} is damaged or cut off; download the model again."
            ) from None
    return Weights(sum(map(prod, shapes.values())), shapes, kinds)


def fingerprint(folder: Path, name: str) -> str:
    """A hash that changes when the folder's model does, without reading all of it.

    SHA-256 over config.json and each weight file's name, size and samples (`samples_of`).
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for file in weight_files(folder, name):
        digest.update(f"\0{file.name}\0{file.stat().st_size}\0".encode())
        for piece in samples_of(file, _SAMPLE):
            digest.update(piece)
    return digest.hexdigest()


def samples_of(file: Path, ends: int) -> Iterator[bytes]:
    """Parts of a file that differ where its model does, without reading all of it.

    These are the first and the last `ends` bytes, and 512 pieces of 4 KiB, evenly spread between
    them: weights that were trained further or merged differ in all of a tensor. A file that is not
    much larger is given whole.

    Args:
        file: the file.
        ends: number of bytes.
    """
    size = file.stat().st_size
    between = size - 2 * ends
    with file.open("rb") as handle:
        if between <= 2 * _PIECES * _PIECE:
            yield from iter(lambda: handle.read(_CHUNK), b"")
            return
        yield handle.read(ends)
        for place in range(_PIECES):
            handle.seek(ends + place * (between - _PIECE) // (_PIECES - 1))
            yield handle.read(_PIECE)
        handle.seek(size - ends)
        yield handle.read(ends)


def load_tokenizer(folder: Path, name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The folder's tokenizer.

    Raises:
        DemurError: there is none, or it is not a fast one (offsets and spans need those).
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    check_texts(folder, name)
    if not trust_remote_code and not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise DemurError(f"{name} has no tokenizer; put its tokenizer.json beside the weights.")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise DemurError(
            f"{name}: its tokenizer cannot be read ({first_line(error)}); download it again."
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast) and not tokenizer.is_fast:
        raise DemurError(f"{name} has no fast tokenizer; convert it to a tokenizer.json.")
    return tokenizer


def load_weights(
    folder: Path,
    name: str,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: torch.device,
    *,
    spread: bool = False,
    quantization: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load the folder's weights onto `device`, or over all devices if `spread` is set.

    Of processes that were started together, each loads its part.

    Raises:
        DemurError: weights are missing, damaged, or too large for the memory, or cannot be divided.
    """
    transformers: Any = importlib.import_module("transformers")  # hardly typed
    weights = list_weights(weight_files(folder, name), name)
    if getattr(config, "quantization_config", None) is None:
        check_weights(config, weights, name, trust_remote_code)
    options: dict[str, Any] = {}
    if quantization is not None:
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    if processes.count() > 1:
        check_divisible(config, name)
        options |= dividing_options()
    if spread:
        options["device_map"] = "auto"
    else:
        needed = int(weights.count * (0.7 if quantization else dtype.itemsize))
        require_memory(needed // processes.count(), device, name)
        if quantization is not None:
            options["device_map"] = {"": device}
    try:
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **options,
        )
    except RuntimeError as error:
        if "ignore_mismatched_sizes" in str(error):
            raise other_shapes(config, weights, name, trust_remote_code) from error
        raise
    check_complete(loading, name)
    check_all_used(loading, model, name)
    if quantization is None:
        check_numbers(model, name)
    else:
        _keep_differentiable(model)
    if not options:
        model.to(device)
    return freeze(model)


def _keep_differentiable(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from packing 4-bit weights for a kernel that has no gradient.

    On processors with AVX512-BF16 it does so in the first forward pass that needs no gradient, and
    every gradient is zero from there on.
    """
    for module in model.modules():
        if hasattr(module, _PACKS_FOR_CPU):
            setattr(module, _PACKS_FOR_CPU, False)


def freeze(model: PreTrainedModel) -> PreTrainedModel:
    """Evaluation mode, and no parameter wants a gradient."""
    model.train(False)
    model.requires_grad_(False)
    return model


def require_memory(needed: int, device: torch.device, name: str) -> None:
    """Refuse a model that needs more bytes than a device has free."""
    free = available_memory(device)
    if needed > free:
        raise out_of_memory(name, f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")


def out_of_memory(name: str, detail: str) -> DemurError:
    return DemurError(
        f"{name} does not fit into memory ({detail}); "
        "free some, choose a smaller model or dtype, or quantize to 4 bits."
    )


@contextmanager
def explained_errors(name: str) -> Iterator[None]:
    """Turn what the libraries raise while they load a model into one line."""
    try:
        yield
    except DemurError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise out_of_memory(name, "it ran out while loading") from error
    except SafetensorError as error:
        raise DemurError(f"{name}: a weight file is damaged; download the model again.") from error
    except ImportError as error:
        raise DemurError(f"{name} needs another package: {first_line(error)}.") from error
    except OSError as error:
        if error.errno in DISK_FULL:
            raise DemurError(
                f"The disk is full while loading {name}; free some space or point DEMUR_CACHE "
                "(demur) or HF_HOME (the hub's downloads) at another disk."
            ) from error
        raise DemurError(f"{name} cannot be loaded: {first_line(error)}.") from error
    except RuntimeError as error:
        if "allocate memory" in str(error) or "not enough memory" in str(error):
            raise out_of_memory(name, "it ran out while loading") from error
        raise DemurError(f"{name} cannot be loaded: {first_line(error)}.") from error
    except Exception as error:  # what a model is made of fails in any way where its files are odd
        raise DemurError(
            f"{name} cannot be loaded, its files may be damaged: {first_line(error)}."
        ) from error


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence what the libraries say and draw, and restore their settings afterwards.

    Also pauses the garbage collector: importing a model's code and making its modules allocate
    hundreds of thousands of objects, none of which are garbage, and searching them takes a tenth
    of the time.
    """
    logging: Any = importlib.import_module("transformers.utils.logging")
    bar: Any = importlib.import_module("tqdm.auto").tqdm
    collecting = gc.isenabled()
    level, bars, start_bar = (
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
        bar.__init__,
    )
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    # The GGUF reader draws a bar that no setting governs.
    bar.__init__ = partialmethod(start_bar, disable=True)
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if collecting:
            gc.enable()
        bar.__init__ = start_bar
        if bars:
            logging.enable_progress_bar()
        logging.set_verbosity(level)
