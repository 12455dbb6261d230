"""A model folder whose vocabulary holds the safety prompt and whose template opens with it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demur.chat import ChatModel
from demur.chat.checkpoint import weight_files
from demur.errors import DemurError
from demur.exports.head import MOST_PROBABLE, head_row
from demur.exports.opening import make_opening
from demur.exports.weights import Change, stored_name, with_rows, write_weights
from demur.files import read_json, write_json
from demur.progress import Progress
from demur.prompts import SafetyPrompt

_KEPT = ("generation_config.json", "preprocessor_config.json", "processor_config.json")


def write_transformers_folder(
    model: ChatModel, prompt: SafetyPrompt, folder: Path, progress: Progress
) -> None:
    """Write the model with the prompt's rows as tokens of its vocabulary.

    The rows go to ids that the tokenizer leaves unused and, where these are too few, behind the
    vocabulary. A head that shares the embeddings gets a table of its own. Nothing else changes.

    Args:
        model: the base.
        prompt: trained.
        folder: empty.
        progress: hears of the stages.

    Raises:
        DemurError: the model's files do not allow it.
    """
    assert prompt.embeddings is not None
    source = model.folder
    if read_json(source / "config.json").get("auto_map"):
        raise DemurError(f"{model.name} runs code of its own: export to peft instead.")
    opening = make_opening(model, prompt)
    files = weight_files(source, model.name)
    network = model.engine.model
    table: Any = network.get_input_embeddings()
    head: Any = network.get_output_embeddings()
    embeddings: Tensor = table.weight
    tied = head.weight is embeddings
    into = stored_name(files, _parameter(network, table), model.name)
    out = _parameter(network, head)
    with progress.stage("Finding a place that the model never emits", 1) as stage:
        unlikely = head_row(model)
        stage.advance()
    if unlikely.probability > MOST_PROBABLE:
        progress.message(
            f"{model.name} has no direction that its states share: a safety token may be emitted "
            f"with a probability of up to {unlikely.probability:.0e}."
        )
    rows = _stored_rows(table, prompt.embeddings)
    silent = unlikely.row.expand(prompt.rows, -1)
    first = opening.first_id

    def with_prompt(stored: Tensor) -> Mapping[str, Tensor]:
        changed = {into: with_rows(stored, first, rows)}
        return {**changed, out: with_rows(stored, first, silent)} if tied else changed

    changes: dict[str, Change] = {into: with_prompt}
    if not tied:
        name = stored_name(files, out, model.name)
        changes[name] = lambda stored: {name: with_rows(stored, first, silent)}
    size = sum(file.stat().st_size for file in files)
    with progress.stage("Writing the weights", size, "bytes") as stage:
        write_weights(source, folder, model.name, changes, stage)
    _write_config(source, folder, tied, max(len(embeddings), first + prompt.rows))
    for name in _KEPT:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    opening.tokenizer.save_pretrained(folder)


def _stored_rows(table: Any, rows: Tensor) -> Tensor:
    """Rows as the table stores them; some models multiply what they read from it.

    Raises:
        DemurError: the model does more to its embeddings than multiply them by a number.
    """
    ids = torch.arange(min(8, table.weight.shape[0]), device=table.weight.device)
    with torch.no_grad():
        stored, given = table.weight[ids].float(), table(ids).float()
    scale = (given * stored).sum() / (stored**2).sum()
    if not torch.allclose(given, scale * stored, rtol=1e-2, atol=1e-6):
        raise DemurError("The model transforms its embeddings: export to peft instead.")
    stored_rows: Tensor = rows / scale.cpu()
    return stored_rows


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
