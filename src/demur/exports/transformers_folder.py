"""A model folder whose vocabulary holds the safety prompt and whose template opens with it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demur.chat import ChatModel
from demur.chat.engine.architecture import end_tokens
from demur.errors import DemurError
from demur.exports.portable import add_older_names, write_known_tokenizer
from demur.exports.vocabulary import Vocabulary
from demur.exports.weights import Change, Tables, with_rows, write_weights
from demur.files import read_json, write_json
from demur.progress import Progress

_GENERATION = "generation_config.json"
_KEPT = (_GENERATION, "preprocessor_config.json", "processor_config.json")


def write_transformers_folder(
    model: ChatModel,
    vocabulary: Vocabulary,
    folder: Path,
    progress: Progress,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the model with the prompt's rows as tokens of its vocabulary.

    The rows go to ids that the tokenizer leaves unused and, where these are too few, behind the
    vocabulary. A head that shares the embeddings gets a table of its own. The generation settings
    list what ends an answer. Nothing else changes.

    Args:
        model: base model.
        vocabulary: tokens and rows that are added.
        folder: empty folder to write into.
        progress: receives the stages.
        dtype: number format of the weights; None for that of the model's files.

    Raises:
        DemurError: the model's files do not allow it.
    """
    source, tables = model.folder, Tables.of(model)
    if dtype is not None and "quantization_config" in read_json(source / "config.json"):
        raise DemurError(
            f"The weights of {model.name} are quantized and keep their format: leave out --dtype."
        )
    first = vocabulary.opening.first_id

    def with_prompt(stored: Tensor) -> Mapping[str, Tensor]:
        changed = {tables.embeddings: with_rows(stored, first, vocabulary.rows)}
        silent = {tables.head: with_rows(stored, first, vocabulary.silent)}
        return {**changed, **silent} if tables.tied else changed

    changes: dict[str, Change] = {tables.embeddings: with_prompt}
    if not tables.tied:
        name = tables.head
        changes[name] = lambda stored: {name: with_rows(stored, first, vocabulary.silent)}
    size = sum(file.stat().st_size for file in tables.files)
    with progress.stage("Writing the weights", size, "bytes") as stage:
        write_weights(source, folder, model.name, changes, stage, dtype)
    rows = max(tables.rows, first + len(vocabulary.rows))
    _write_config(source, folder, tables.tied, rows, dtype)
    for name in _KEPT:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    _write_ends(folder, model)
    opening = vocabulary.opening
    if opening.more:
        opening.tokenizer.chat_template = opening.templates
    opening.tokenizer.save_pretrained(folder)
    write_known_tokenizer(folder)


def _write_config(
    source: Path, folder: Path, tied: bool, vocabulary: int, dtype: torch.dtype | None
) -> None:
    config: dict[str, Any] = read_json(source / "config.json")
    parts = [config, *(part for part in [config.get("text_config")] if isinstance(part, dict))]
    for part in parts:
        if "vocab_size" in part:
            part["vocab_size"] = vocabulary
    if tied:
        # Where the setting is absent, a class's own default may tie.
        for part in parts:
            part["tie_word_embeddings"] = False
    if dtype is not None:
        for part in parts:
            part.pop("torch_dtype", None)
            part["dtype"] = str(dtype).removeprefix("torch.")
    add_older_names(config)
    write_json(folder / "config.json", config)


def _write_ends(folder: Path, model: ChatModel) -> None:
    """List all tokens that end an answer in demur, of which the model's files may lack some.

    Some engines read the first one only, so the end of the template's turn comes first.
    """
    file = folder / _GENERATION
    settings: dict[str, Any] = read_json(file) if file.is_file() else {}
    turn, own = model.engine.turn_end.tokens, model.engine.tokenizer.eos_token_id
    ends = end_tokens(model.engine.model, model.engine.tokenizer) | turn
    if ends:
        ordered = sorted(ends, key=lambda one: (one not in turn, one != own, one))
        write_json(file, {**settings, "eos_token_id": ordered})
