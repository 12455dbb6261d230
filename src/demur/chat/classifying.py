"""A sequence classifier: a model that gives one of its labels to a text."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from demur.bars import default_progress
from demur.chat.checkpoint import (
    explained_errors,
    fingerprint,
    freeze,
    list_weights,
    load_tokenizer,
    quiet_libraries,
    require_memory,
    weight_files,
)
from demur.chat.configuration import load_classifier_config
from demur.chat.hardware import choose_device, choose_dtype
from demur.chat.hub import hub_snapshot
from demur.chat.tokenization import Segment, SegmentTokenizer
from demur.chat.weight_checks import check_complete, check_numbers
from demur.errors import DemurError
from demur.hub import HubModel
from demur.progress import Progress, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

MOST_TOKENS = 2048
"""Tokens of a text that are read, at most, also where a classifier could read more."""

_AT_ONCE = 8192
"""Tokens of a batch, at most, its padding among them."""

Text = Sequence[Segment]
"""A text in parts: `markup` may become special tokens, and every other part may not."""


@dataclass(frozen=True)
class _Frame:
    """The special tokens that stand around every text."""

    before: tuple[int, ...]
    after: tuple[int, ...]


class SequenceClassifier:
    """A sequence classifier that is ready to run.

    Args:
        model: a `...ForSequenceClassification` of transformers.
        tokenizer: its fast tokenizer.
        name: for people.
        identity: the origin of the weights.

    Attributes:
        labels: names of its labels, in the order of its outputs; two or more.
        most_tokens: tokens of a text that are read, at most.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        identity: str,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.name, self.identity = name, identity
        names = {int(row): str(label) for row, label in (model.config.id2label or {}).items()}
        self.labels = tuple(names.get(row, f"LABEL_{row}") for row in range(len(names)))
        self._tokenize = SegmentTokenizer(tokenizer)
        self._frame = _frame_of(tokenizer)
        around = len(self._frame.before) + len(self._frame.after)
        self.most_tokens = max(1, min(MOST_TOKENS, _context(model.config, tokenizer)) - around)
        # Classifiers that read the last token find it by the padding, where there is any.
        pad = tokenizer.pad_token_id
        self._pad = pad if isinstance(pad, int) else None
        model.config.pad_token_id = self._pad

    @classmethod
    def load(
        cls,
        spec: str | Path,
        *,
        dtype: str | None = None,
        device: str | None = None,
        progress: Progress | None = None,
    ) -> SequenceClassifier:
        """Load a classifier from a folder or the hub, from safetensors and without its own code.

        Args:
            spec: folder that `save_pretrained` wrote, or `organisation/name` on the hub.
            dtype: as for `ChatModel.load`; so is `device`.
            device: where it runs; one device.
            progress: reports the download.

        Raises:
            DemurError: there is no such model, it is no sequence classifier with two labels or
                more, or its files are damaged.
        """
        progress = progress or default_progress()
        chosen_device = choose_device(device)
        chosen_dtype, _ = choose_dtype(dtype, chosen_device)
        with explained_errors(str(spec)[:200]), quiet_libraries():
            folder, name, identity = _find(spec, progress)
            config = load_classifier_config(folder, name)
            tokenizer = load_tokenizer(folder, name, trust_remote_code=False)
            model = _load(folder, name, config, chosen_dtype, chosen_device)
        return cls(model, tokenizer, name, identity)

    def classify(self, texts: Sequence[Text], stage: Stage | None = None) -> Tensor:
        """What the classifier gives each label.

        A text that is longer than `most_tokens` is read from its beginning.

        Args:
            texts: N of them.
            stage: advanced by one for each.

        Returns:
            (N, labels) logits, float32 on the CPU; NaN where the model computes no number.
        """
        ids = [self._ids(text) for text in texts]
        found = torch.empty(len(ids), len(self.labels))
        for rows in _batches([len(one) for one in ids], alone=self._pad is None):
            length = max(len(ids[row]) for row in rows)
            padded = torch.full((len(rows), length), self._pad or 0)
            mask = torch.zeros(len(rows), length, dtype=torch.long)
            for place, row in enumerate(rows):
                padded[place, : len(ids[row])] = torch.tensor(ids[row])
                mask[place, : len(ids[row])] = 1
            device = self._model.device
            with torch.inference_mode():
                logits = self._model(
                    input_ids=padded.to(device), attention_mask=mask.to(device)
                ).logits
            found[rows] = logits.float().cpu()
            if stage is not None:
                stage.advance(len(rows))
        return found

    def _ids(self, text: Text) -> list[int]:
        ids, _ = self._tokenize(text)
        return [*self._frame.before, *ids[: self.most_tokens], *self._frame.after]


def _batches(lengths: Sequence[int], *, alone: bool) -> list[list[int]]:
    """Places of texts that are read together: texts of like length, or each one alone."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    batches: list[list[int]] = []
    for row in order:
        # In this order the newest text is the longest one of its batch.
        if batches and not alone and (len(batches[-1]) + 1) * lengths[row] <= _AT_ONCE:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _frame_of(tokenizer: PreTrainedTokenizerBase) -> _Frame:
    plain = tokenizer("x", add_special_tokens=False)["input_ids"]
    framed = tokenizer("x")["input_ids"]
    for start in range(len(framed) - len(plain) + 1):
        if framed[start : start + len(plain)] == plain:
            return _Frame(tuple(framed[:start]), tuple(framed[start + len(plain) :]))
    return _Frame((), ())


def _context(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that fit: RoBERTa and its kin lose the places up to that of their padding."""
    places = getattr(config, "max_position_embeddings", None)
    known = [places] if isinstance(places, int) else []
    if known and config.model_type in _OFFSET and isinstance(config.pad_token_id, int):
        known = [known[0] - config.pad_token_id - 1]
    return min([*known, tokenizer.model_max_length])


_OFFSET = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "mpnet")


def _find(spec: str | Path, progress: Progress) -> tuple[Path, str, str]:
    """The folder of a classifier, its name and the origin of its weights."""
    path = Path(spec).expanduser()
    if path.is_dir():
        name = path.resolve().name or str(path)
        if not (path / "config.json").is_file():
            raise DemurError(f"{path} has no config.json; give a folder of save_pretrained.")
        return path, name, f"folder:{fingerprint(path, name)}"
    on_hub = None if isinstance(spec, Path) else HubModel.parse(spec)
    if on_hub is None:
        raise DemurError(
            f"{str(spec)!r:.200} is neither a folder nor a hub name (organisation/model): check "
            "the spelling."
        )
    found = hub_snapshot(on_hub, False, progress, instead="a folder of save_pretrained")
    if found.path.is_file():
        raise DemurError(f"{on_hub} has GGUF files alone: give a classifier in safetensors.")
    return found.path, str(on_hub), f"{on_hub.name.repository}@{found.commit}"


def _load(
    folder: Path, name: str, config: PreTrainedConfig, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    transformers: Any = importlib.import_module("transformers")
    count = list_weights(weight_files(folder, name), name).count
    require_memory(count * dtype.itemsize, device, name)
    model, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    check_complete(loading, name)
    check_numbers(model, name)
    return freeze(model.to(device))
