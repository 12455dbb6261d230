"""`demur export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from demur.cli.screen import TerminalProgress, console

_USE = {
    "transformers": "vllm serve {path}",
    "peft": "PeftModel.from_pretrained(base, {path!r})",
    "gguf": "llama-server -m {path} --jinja",
    "ollama": "cd {path} && ollama create my-safe-model",
    "vllm": "python {path}/client.py 'How do I kill a process?'",
}


def export_command(
    run: Annotated[Path, typer.Argument(help="A finished run, or a saved trained prompt.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; a free place.")],
    to: Annotated[
        str, typer.Option(help="transformers, gguf, ollama, peft or vllm.")
    ] = "transformers",
    model: Annotated[
        str | None, typer.Option("--model", help="The base model, where the run cannot name it.")
    ] = None,
    system_prompt: Annotated[
        str | None,
        typer.Option(help="For peft: a text file with the application's own system text."),
    ] = None,
) -> None:
    """Write an optimized prompt in a form that other engines load.

    transformers: a model folder that opens every conversation with the prompt; plain transformers
    and what builds on it serve it. gguf: the same for llama.cpp, quantized as a base that is a GGUF
    file, and F16 from a model folder; ollama: with a Modelfile. peft: a small prompt-tuning
    adapter. vllm: requests to a server of the base.
    """
    from demur.exports import export
    from demur.prompts.basic import load_system_prompt

    text = load_system_prompt(system_prompt) if system_prompt is not None else None
    done = export(run, to, folder, model=model, system_prompt=text, progress=TerminalProgress())
    console.print(f"Written: {done.size / 1e6:.1f} MB in")
    console.print(Text(str(done.path), style="bold"), soft_wrap=True)
    path = next(done.path.glob("*.gguf"), done.path) if to == "gguf" else done.path
    if to in ("transformers", "gguf", "ollama"):
        added = (done.size - done.base_size) / 1e6
        than = "more" if added >= 0 else "less"  # F16 from a base of float32
        console.print(f"{abs(added):.1f} MB {than} than the base's weights. Use it with")
    else:
        console.print("Use it with")
    console.print(Text(_USE[to].format(path=str(path)), style="bold"), soft_wrap=True)
