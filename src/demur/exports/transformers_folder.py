"""A model folder whose vocabulary holds the safety prompt and whose template opens with it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from demur.chat import ChatModel
from demur.chat.checkpoint import weight_files
from demur.errors import DemurError
from demur.exports.vocabulary import Vocabulary
from demur.exports.weights import Change, stored_name, with_rows, write_weights
from demur.files import read_json, write_json
from demur.progress import Progress

_KEPT = ("generation_config.json", "preprocessor_config.json", "processor_config.json")


def write_transformers_folder(
    model: ChatModel, vocabulary: Vocabulary, folder: Path, progress: Progress
) -> None:
    """Write the model with the prompt's rows as tokens of its vocabulary.

    The rows go to ids that the tokenizer leaves unused and, where these are too few, behind the
    vocabulary. A head that shares the embeddings gets a table of its own. Nothing else changes.

    Args:
        model: the base.
        vocabulary: what is added.
        folder: empty.
        progress: hears of the stages.

    Raises:
        DemurError: the model's files do not allow it.
    """
    source = model.folder
    if read_json(source / "config.json").get("auto_map"):
        raise DemurError(f"{model.name} runs code of its own: export to peft instead.")
    files = weight_files(source, model.name)
    network = model.engine.model
    table: Any = network.get_input_embeddings()
    head: Any = network.get_output_embeddings()
    embeddings: Tensor = table.weight
    tied = head.weight is embeddings
    into = stored_name(files, _parameter(network, table), model.name)
    out = _parameter(network, head)
    first = vocabulary.opening.first_id

    def with_prompt(stored: Tensor) -> Mapping[str, Tensor]:
        changed = {into: with_rows(stored, first, vocabulary.rows)}
        silent = {out: with_rows(stored, first, vocabulary.silent)}
        return {**changed, **silent} if tied else changed

    changes: dict[str, Change] = {into: with_prompt}
    if not tied:
        name = stored_name(files, out, model.name)
        changes[name] = lambda stored: {name: with_rows(stored, first, vocabulary.silent)}
    size = sum(file.stat().st_size for file in files)
    with progress.stage("Writing the weights", size, "bytes") as stage:
        write_weights(source, folder, model.name, changes, stage)
    _write_config(source, folder, tied, max(len(embeddings), first + len(vocabulary.rows)))
    for name in _KEPT:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    vocabulary.opening.tokenizer.save_pretrained(folder)


def _parameter(network: Any, module: Any) -> str:
    names = [name for name, one in network.named_modules() if one is module]
    return f"{names[0]}.weight"


def _write_config(source: Path, folder: Path, tied: bool, vocabulary: int) -> None:
    config: dict[str, Any] = read_json(source / "config.json")
    parts = [config, *(part for part in [config.get("text_config")] if isinstance(part, dict))]
    for part in parts:
        if "vocab_size" in part:
            part["vocab_size"] = vocabulary
    if tied:
        # Where the setting is absent, a class's own default may tie.
        for part in parts:
            part["tie_word_embeddings"] = False
    write_json(folder / "config.json", config)
