"""`export`: an optimized prompt in a form that another engine loads."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError

from demur.arguments import require_common, require_kind
from demur.bars import default_progress
from demur.chat import ChatModel
from demur.errors import DemurError, did_you_mean, first_line
from demur.exports.base import Source, Subject
from demur.exports.gguf_from_folder import write_from_folder
from demur.exports.gguf_from_gguf import write_from_gguf
from demur.exports.gguf_models import Layout
from demur.exports.modelfile import modelfile
from demur.exports.opening import make_opening
from demur.exports.peft_adapter import write_peft_adapter
from demur.exports.transformers_folder import write_transformers_folder
from demur.exports.vllm_payload import write_vllm_payload
from demur.exports.vocabulary import Vocabulary
from demur.files import DISK_FULL, SPACE_MARGIN, megabytes, new_folder, safe_name, write_bytes
from demur.optimization import Run
from demur.progress import Progress
from demur.prompts import SafetyPrompt

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Number formats that an export to transformers may be written in."""

FORMATS = ("transformers", "gguf", "ollama", "peft", "vllm")
_GGUF = ("gguf", "ollama")
_SMALL = ("peft", "vllm")
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Exported:
    """An export that was written.

    Attributes:
        path: folder of the export.
        to: engine, one of `FORMATS`.
        size: size of all its files in bytes.
        base_size: size of the base model's weight files in bytes.
    """

    path: Path
    to: str
    size: int
    base_size: int


def export(
    prompt: Source,
    to: str,
    folder: str | Path,
    *,
    model: ChatModel | str | None = None,
    system_prompt: str | None = None,
    chat_template: str | Path | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write an optimized prompt for another engine: all of it or, where that fails, nothing.

    Args:
        prompt: run, trained safety prompt, folder of either, or `organisation/name` on the hub.
        to: `transformers`, a model folder; `peft`, a prompt-tuning adapter; `gguf`, a GGUF file in
            a folder, with the quantization of a base that is one and F16 from a model folder;
            `ollama`, the same with a Modelfile; `vllm`, requests with the prompt as embeddings.
        folder: free place or empty folder.
        model: base model; None for the one that the prompt names.
        system_prompt: application's own system text, for `peft` only.
        chat_template: file with a Jinja chat template, where the run was trained with one; for a
            base model that is given by name.
        dtype: number format of the weights in an export to `transformers`, `float32` or
            `bfloat16`; None for that of the base model's files.
        progress: receives the stages.

    Raises:
        DemurError: the prompt is none, does not belong to the model or cannot be exported to that
            engine, or the folder cannot be written.

    Example:
        `export("demur-runs/my-run", "gguf", "exported")`
    """
    require_common(progress=progress)
    require_kind("prompt", prompt, (str, Path, Run, SafetyPrompt), "a run, a prompt or a path")
    require_kind("to", to, str, f"the name of an engine: {', '.join(FORMATS)}")
    require_kind("folder", folder, (str, PathLike), "the path of a new folder")
    require_kind("model", model, (str, PathLike, ChatModel, type(None)), "a ChatModel or a name")
    require_kind("dtype", dtype, (str, type(None)), f"one of {', '.join(DTYPES)}")
    require_kind("system_prompt", system_prompt, (str, type(None)), "the text itself")
    progress = progress or default_progress()
    target = Path(folder)
    if to not in FORMATS:
        raise DemurError(
            f"There is no export to {to!r:.60}{did_you_mean(to, FORMATS)}: choose "
            f"{', '.join(FORMATS)}."
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DemurError(f"{target} exists already: choose another folder, or delete it.")
    if system_prompt is not None and to != "peft":
        raise DemurError(
            "An application's own system text is only written into an export to peft: leave it "
            "out; the application sends it as its system message."
        )
    if dtype is not None and to != "transformers":
        raise DemurError(
            f"An export to {to} has a number format of its own: leave out the dtype, or export to "
            "transformers."
        )
    if dtype not in (None, *DTYPES):
        raise DemurError(f"There is no dtype {dtype!r:.60} here: choose {' or '.join(DTYPES)}.")
    subject = Subject.of(prompt)
    if not isinstance(model, ChatModel):
        model = ChatModel.load(
            model or subject.model_name, chat_template=chat_template, progress=progress
        )
    subject.require_model(model)
    base_size = _base_size(model, to)
    if to not in _SMALL:
        _require_space(target, _least_size(model, to, dtype))
    with new_folder(target) as new:
        try:
            _write(model, subject.prompt, to, new, system_prompt, dtype, progress)
        except SafetensorError as error:
            raise _explained(error, model, target) from error
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    return Exported(target, to, size, base_size)


def _write(
    model: ChatModel,
    prompt: SafetyPrompt,
    to: str,
    folder: Path,
    system_prompt: str | None,
    dtype: str | None,
    progress: Progress,
) -> None:
    if to == "peft":
        write_peft_adapter(model, prompt, folder, system_prompt)
        return
    if to == "vllm":
        write_vllm_payload(model, prompt, make_opening(model, prompt), folder)
        return
    # Before the work on the vocabulary: whether such a model can be written at all.
    layout = Layout(model) if to in _GGUF and model.gguf is None else None
    vocabulary = Vocabulary.of(model, prompt, progress, may_think=to not in _GGUF)
    if to == "transformers":
        write_transformers_folder(model, vocabulary, folder, progress, DTYPES.get(dtype or ""))
        return
    # Names may be a stranger's: nothing in them leads out of the folder.
    names = [safe_name(one)[:_LONGEST_NAME] for one in (model.name, prompt.name)]
    file = folder / f"{'-'.join(one for one in names if one) or 'model'}.gguf"
    # Ollama would put a second one before that of the template.
    adds_first = to != "ollama"
    if layout is not None:
        write_from_folder(model, layout, file, vocabulary, progress, adds_first=adds_first)
    else:
        assert model.gguf is not None
        write_from_gguf(model.gguf, file, vocabulary, prompt, progress, adds_first=adds_first)
    if to == "ollama":
        tokenizer, ends = vocabulary.opening.tokenizer, model.engine.turn_end.tokens
        text = modelfile(file.name, tokenizer, model.name, model.renderer.options, ends)
        write_bytes(folder / "Modelfile", text.encode())


def _explained(error: SafetensorError, model: ChatModel, target: Path) -> DemurError:
    """What is wrong where weights can be neither read nor written."""
    told = first_line(error)
    full = any(os.strerror(number) in told for number in DISK_FULL)
    if full:
        return DemurError(f"No space is left to write {target}: free some and export again.")
    if "I/O" in told:
        return DemurError(f"Cannot write {target} ({told}): choose a place that can be written.")
    return DemurError(
        f"The weights of {model.name} cannot be read ({told}): download the model again."
    )


def _least_size(model: ChatModel, to: str, dtype: str | None) -> int:
    """The least number of bytes that an export of a whole model takes."""
    if dtype is not None or (to in _GGUF and model.gguf is None):
        parameters = model.engine.model.parameters()
        number = DTYPES[dtype].itemsize if dtype is not None else 2  # F16
        return number * sum(one.numel() for one in parameters)
    return _base_size(model, to)


def _base_size(model: ChatModel, to: str) -> int:
    if to in _GGUF and model.gguf is not None:
        return model.gguf.stat().st_size
    return sum(file.stat().st_size for file in model.folder.glob("*.safetensors"))


def _require_space(target: Path, needed: int) -> None:
    place = target.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed + SPACE_MARGIN:
        raise DemurError(
            f"The export needs {megabytes(needed + SPACE_MARGIN)} MB in {place} and "
            f"{free // 10**6} MB are free: free some space, or choose a folder on another disk."
        )
