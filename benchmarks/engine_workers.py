"""One engine's answers to the conversations of `engines.py`, in an environment of its own.

    python engine_workers.py transformers|ctranslate2|vllm FOLDER CASES RESULT

Imports nothing of demur, because these environments have none of its versions. CASES is JSON: lists
of messages in `openings` and `queries`, variables of the template in `options`, and the number of
`tokens` of an answer. RESULT gets the token ids that the engine reads of each opening (or the
error), and for each query those that it reads and those that it answers with, the likeliest ones.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

Messages = list[dict[str, Any]]


def template_of(folder: str) -> tuple[Any, Callable[[Messages, dict[str, Any]], list[int]]]:
    """The tokenizer of a folder, and what it makes of messages."""
    library: Any = importlib.import_module("transformers")
    tokenizer = library.AutoTokenizer.from_pretrained(folder)

    def render(messages: Messages, options: dict[str, Any]) -> list[int]:
        text = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False, **options
        )
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    return tokenizer, render


def in_transformers(folder: str, cases: dict[str, Any]) -> dict[str, Any]:
    """Plain transformers of whatever version is installed."""
    torch: Any = importlib.import_module("torch")
    library: Any = importlib.import_module("transformers")
    _, render = template_of(folder)
    model = library.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(messages: Messages) -> tuple[list[int], list[int]]:
        ids = render(messages, {})
        with torch.inference_mode():
            output = model.generate(
                torch.tensor([ids]), do_sample=False, max_new_tokens=cases["tokens"]
            )
        return ids, output[0, len(ids) :].tolist()

    return answered(cases, render, answer)


def in_ctranslate2(folder: str, cases: dict[str, Any]) -> dict[str, Any]:
    """CTranslate2, behind the tokenizer and the template of the folder."""
    library: Any = importlib.import_module("ctranslate2")
    tokenizer, render = template_of(folder)
    with tempfile.TemporaryDirectory() as place:
        command = [str(Path(sys.executable).with_name("ct2-transformers-converter"))]
        command += ["--model", folder, "--output_dir", place, "--force"]
        subprocess.run([*command, "--quantization", "float32"], check=True, capture_output=True)
        generator = library.Generator(place, device="cpu", compute_type="float32")

    def answer(messages: Messages) -> tuple[list[int], list[int]]:
        ids = render(messages, {})
        found = generator.generate_batch(
            [tokenizer.convert_ids_to_tokens(ids)],
            max_length=cases["tokens"],
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=cases["ends"],
        )
        return ids, list(found[0].sequences_ids[0])

    return answered(cases, render, answer)


def in_vllm(folder: str, cases: dict[str, Any]) -> dict[str, Any]:
    """vLLM's own reading of messages, its template engine and its kernels."""
    library: Any = importlib.import_module("vllm")
    model = library.LLM(folder, dtype="float32", enforce_eager=True, max_model_len=2048)

    def ask(messages: Messages, options: dict[str, Any], tokens: int) -> Any:
        sampling = library.SamplingParams(temperature=0, max_tokens=tokens)
        (output,) = model.chat(
            messages, sampling, use_tqdm=False, tools=options.get("tools") or None
        )
        return output

    def render(messages: Messages, options: dict[str, Any]) -> list[int]:
        return list(ask(messages, options, 1).prompt_token_ids)

    def answer(messages: Messages) -> tuple[list[int], list[int]]:
        output = ask(messages, {}, cases["tokens"])
        return list(output.prompt_token_ids), list(output.outputs[0].token_ids)

    return answered(cases, render, answer)


def answered(
    cases: dict[str, Any],
    render: Callable[[Messages, dict[str, Any]], list[int]],
    answer: Callable[[Messages], tuple[list[int], list[int]]],
) -> dict[str, Any]:
    """All openings and all answers; an opening that the engine refuses is its error."""
    openings: list[Any] = []
    for case in cases["openings"]:
        try:
            openings.append(render(case["messages"], case["options"]))
        except Exception as error:
            openings.append(f"{type(error).__name__}: {str(error)[:200]}")
    return {"openings": openings, "answers": [answer(one) for one in cases["queries"]]}


ENGINES = {
    "transformers": (in_transformers, "transformers"),
    "ctranslate2": (in_ctranslate2, "ctranslate2"),
    "vllm": (in_vllm, "vllm"),
}


if __name__ == "__main__":
    engine, folder, cases, result = sys.argv[1:]
    work, package = ENGINES[engine]
    found = work(folder, json.loads(Path(cases).read_text()))
    Path(result).write_text(json.dumps({**found, "version": version(package)}))
