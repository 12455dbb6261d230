"""`demur export`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from rich.text import Text

from demur.cli.command import Command
from demur.cli.screen import console, show_path
from demur.cli.stages import TerminalProgress
from demur.cli.work import require_finished

_WHOLE_MODELS = ("transformers", "gguf", "ollama")
_RAW = (
    "Offer its chat alone, and no raw completions: in the chat users cannot write a safety token; "
    "in a raw completion its name (<|safety-...|>) counts as the token."
)
_CAUTIONS = {
    "transformers": _RAW,
    "gguf": _RAW,
    "peft": "In batches, pad on the right or send conversations of one length: behind virtual "
    "tokens, PEFT counts padding on the left as positions.",
    "ollama": "Take <|safety- out of what users write: Ollama takes the name of a safety token for "
    "the token.",
}


class ExportOptions(BaseModel):
    """What is exported, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str = Field(
        description="folder of a finished run or of a saved trained prompt, or organisation/name "
        "on the hub",
        json_schema_extra={"argument": True},
    )
    folder: Path = Field(
        description="folder to write; it must be empty or not exist yet",
        json_schema_extra={"argument": True},
    )
    to: Literal["transformers", "gguf", "ollama", "peft", "vllm"] = Field(
        default="transformers", description="engine to export for"
    )
    model: str | None = Field(
        default=None,
        description="base model",
        json_schema_extra={"default": "the model that the run names"},
    )
    chat_template: str | None = Field(
        default=None,
        description="file with the Jinja chat template that the run was trained with",
        json_schema_extra={"default": "the model's own"},
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None,
        description="number format of the weights, for transformers only",
        json_schema_extra={"default": "that of the base model's files"},
    )
    system_prompt: str | None = Field(
        default=None,
        description="for peft: text file with the application's own system text, or none",
        json_schema_extra={
            "default": "the one that the run was trained behind",
            "keeps_none": True,
        },
    )


def run_export(options: ExportOptions) -> None:
    """Write the export and say how to use it."""
    from demur.exports import export
    from demur.prompts import system_text_for, trained_behind
    from demur.records import kind_of

    run = Path(options.run)
    require_finished(run, kind_of(run))
    text = None
    if options.to == "peft" or options.system_prompt is not None:
        text = system_text_for(options.system_prompt, [options.run], [None]).text
    done = export(
        options.run,
        options.to,
        options.folder,
        model=options.model,
        system_prompt=text,
        chat_template=options.chat_template,
        dtype=options.dtype,
        progress=TerminalProgress(),
    )
    show_path(f"Written: {done.size / 1e6:.1f} MB in", done.path)
    if options.to in _WHOLE_MODELS:
        added = (done.size - done.base_size) / 1e6
        than = "more" if added >= 0 else "less"  # F16 from a base of float32
        console.print(f"This is {abs(added):.1f} MB {than} than the base's weights.")
    path = next(done.path.glob("*.gguf"), done.path) if options.to == "gguf" else done.path
    console.print("Use it with:")
    console.print(Text(_use(options.to, path), style="bold"), soft_wrap=True)
    if options.to in _CAUTIONS:
        console.print(_CAUTIONS[options.to])
    if trained_behind(options.run) is not None and text is None:
        console.print(
            "The prompt was trained behind your application's system text, which is not in the "
            "export: send it as the system message."
        )
    elif text is not None and options.system_prompt is None:
        console.print("The application's system text that the run was trained behind is in it.")


def _use(to: str, path: Path) -> str:
    quoted = shlex.quote(str(path))
    return {
        "transformers": f"vllm serve {quoted}{_as_written(path)}",
        "peft": f"PeftModel.from_pretrained(base, {str(path)!r})",
        "gguf": f"llama-server -m {quoted} --jinja",
        "ollama": f"cd {quoted} && ollama create my-safe-model",
        "vllm": f"python {shlex.quote(str(path / 'client.py'))} 'How do I kill a process?'",
    }[to]


def _as_written(folder: Path) -> str:
    """The option that makes vLLM compute in float32 where the weights are; it rounds by default."""
    from demur.files import read_json

    config = folder / "config.json"
    if not config.is_file() or read_json(config).get("dtype") != "float32":
        return ""
    return " --dtype float32"


EXPORT = Command(
    verb="export",
    settings=ExportOptions,
    run=run_export,
    details="""
    transformers: a model folder that opens every conversation with the prompt, for transformers and
    the engines that build on it.

    gguf: the same for llama.cpp, with the quantization of a base that is a GGUF file, and in F16
    from a model folder. ollama: the same with a Modelfile.

    peft: a small prompt-tuning adapter. vllm: requests to a server of the base model.""",
)
