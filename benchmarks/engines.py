"""An exported prompt in real engines, form by form and token by token, against demur itself.

    python benchmarks/engines.py RUN --python ENGINE=PYTHON [...] [--model NAME] [--queries 60]

`make engines` builds the environments. ENGINE is `transformers`, `ctranslate2` or `vllm`, and
PYTHON the interpreter of an environment that has it; llama.cpp runs where the extra `engines` is
installed. Every engine gets every form of a conversation, as texts and as parts, and must read the
tokens that demur uses; and it answers held-out queries with its likeliest 20 tokens, which are
compared with demur's. Weights are float32 (in the GGUF file those of the base). Keeps what each
engine did in `benchmarks/results/` as soon as it is done, and prints the table.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import json
import os
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from common import run, stop, write_results
from demur.chat import ChatModel, Condition
from demur.chat.catalog import DEFAULT_MODEL
from demur.chat.engine import SamplingSettings
from demur.exports import export
from demur.exports.base import Subject
from demur.exports.template_forms import FORMS, Form
from demur.judges import PaperRefusalJudge
from demur.prompts import SafetyPrompt
from demur.queries import load_query_set
from demur.records import text_of

WORKER = Path(__file__).with_name("engine_workers.py")
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
TOKENS = 20


def opening_cases() -> list[tuple[Form, int]]:
    """Every form, as texts and as one part."""
    return [(form, parts) for form in FORMS for parts in (0, 1)]


def right_openings(folder: Path) -> list[list[int]]:
    """The tokens of every opening; the export has checked the template against demur's renderer."""
    library: Any = importlib.import_module("transformers")
    tokenizer = library.AutoTokenizer.from_pretrained(folder)
    return [
        list(
            tokenizer.apply_chat_template(
                form.messages(parts), add_generation_prompt=True, return_dict=False, **form.options
            )
        )
        for form, parts in opening_cases()
    ]


def in_process(model: ChatModel, prompt: SafetyPrompt, queries: list[str]) -> list[list[int]]:
    """demur's own likeliest tokens."""
    greedy = SamplingSettings(samples=1, most_tokens=TOKENS, temperature=0.0)
    found = model.read_and_sample(queries, Condition(prompt), greedy).samples
    tokenize = model.engine.tokenizer
    return [tokenize(one.text, add_special_tokens=False)["input_ids"] for (one,) in found]


def in_environment(engine: str, python: str, folder: Path, cases: Path) -> dict[str, Any]:
    """What an engine in an environment of its own says; an error where it does not load."""
    result = cases.with_name(f"{engine}.json")
    threads = str(torch.get_num_threads())
    done = subprocess.run(
        [python, str(WORKER), engine, str(folder), str(cases), str(result)],
        env={**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": threads, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if not result.is_file():
        lines = (done.stderr or done.stdout).strip().splitlines()
        return {"error": lines[-1][:300] if lines else "it ended without a result"}
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def in_llama_cpp(file: Path, cases: dict[str, Any], tokenize: Any) -> dict[str, Any]:
    """llama.cpp's server, which counts the tokens of an opening and names none."""
    library: Any = importlib.import_module("xllamacpp")
    settings = library.CommonParams()
    settings.model.path, settings.n_ctx, settings.use_jinja = str(file), 2048, True
    settings.n_parallel, settings.warmup, settings.verbosity = 1, False, -1
    settings.cpuparams.n_threads = torch.get_num_threads()
    server = library.Server(settings)

    def ask(messages: Any, tokens: int, options: dict[str, Any]) -> Any:
        sampling = {"temperature": 0.0, "top_k": 1, "max_tokens": tokens, "repeat_penalty": 1.0}
        return server.handle_chat_completions({"messages": messages, **sampling, **options})

    openings: list[Any] = []
    for case in cases["openings"]:
        try:
            found = ask(case["messages"], 1, case["options"])
            openings.append(found["usage"]["prompt_tokens"])
        except Exception as error:
            openings.append(f"{type(error).__name__}: {str(error)[:200]}")
    texts = [
        ask(one, cases["tokens"], {})["choices"][0]["message"]["content"] or ""
        for one in cases["queries"]
    ]
    answers = [[[], tokenize(text, add_special_tokens=False)["input_ids"]] for text in texts]
    return {"openings": openings, "answers": answers, "version": version("xllamacpp")}


def compared(
    found: dict[str, Any], right: list[list[int]], wanted: list[list[int]], tokenizer: Any
) -> dict[str, Any]:
    """What the table says of an engine."""
    if "error" in found:
        return {"loads": False, "error": found["error"]}
    wrong: dict[str, str] = {}
    for (form, parts), expected, ids in zip(opening_cases(), right, found["openings"], strict=True):
        same = ids == len(expected) if isinstance(ids, int) else ids == expected
        if not same:
            how = f"{form.name}, {'in parts' if parts else 'as text'}"
            wrong[how] = ids if isinstance(ids, str) else "other tokens"
    ends = set(tokenizer.all_special_ids)
    answers = [[one for one in ids if one not in ends] for _, ids in found["answers"]]
    judge = PaperRefusalJudge()
    refused = [judge.refuses(tokenizer.decode(ids)) for ids in answers]
    half = len(refused) // 2
    return {
        "loads": True,
        "version": found["version"],
        "openings": len(right) - len(wrong),
        "of": len(right),
        "wrong": wrong,
        "greedy_equal": sum(a == b for a, b in zip(answers, wanted, strict=True)),
        "queries": len(wanted),
        "harmful_refused": sum(refused[:half]),
        "harmless_refused": sum(refused[half:]),
    }


def shown(rows: dict[str, dict[str, Any]]) -> Table:
    """The table for people."""
    table = Table(title=f"greedy: {TOKENS} tokens")
    for column in ("engine", "version", "openings", "greedy equal", "refused", "wrong"):
        table.add_column(column)
    for name, row in rows.items():
        if not row["loads"]:
            table.add_row(name, "", "does not load", "", "", row["error"])
            continue
        table.add_row(
            name,
            row["version"],
            f"{row['openings']} of {row['of']}",
            f"{row['greedy_equal']} of {row['queries']}",
            f"{row['harmful_refused']} harmful, {row['harmless_refused']} harmless",
            "; ".join(row["wrong"]),
        )
    return table


def main() -> None:
    """Export once, then ask every engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=PYTHON")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--queries", type=int, default=60)
    options = parser.parse_args()
    pythons = dict(one.split("=", 1) for one in options.python if "=" in one)
    if len(pythons) < len(options.python):
        stop("Give --python ENGINE=PYTHON, for example --python vllm=.engines/vllm/bin/python.")
    queries = [
        text_of(one)
        for label in ("harmful", "harmless")
        for one in load_query_set("held-out", label).head(options.queries // 2)
    ]
    model = ChatModel.load(options.model, dtype="float32")
    prompt = Subject.of(options.run).prompt
    with tempfile.TemporaryDirectory() as place:
        folder = export(prompt, "transformers", Path(place, "folder"), model=model).path
        wanted = in_process(model, prompt, queries)
        tokenizer: Any = model.engine.tokenizer
        right = right_openings(folder)
        given = {
            "openings": [
                {"messages": form.messages(parts), "options": dict(form.options)}
                for form, parts in opening_cases()
            ],
            "queries": [[{"role": "user", "content": query}] for query in queries],
            "tokens": TOKENS,
            "ends": json.loads((folder / "generation_config.json").read_text())["eos_token_id"],
        }
        cases = Path(place, "cases.json")
        cases.write_text(json.dumps(given))
        rows = {"demur": own(wanted, right, tokenizer)}

        def keep(name: str, found: dict[str, Any]) -> None:
            rows[name] = compared(found, right, wanted, tokenizer)
            forms = [form.name for form in FORMS]
            what = {"model": options.model, "rows": prompt.rows, "forms": forms}
            write_results("engines", {**what, "engines": rows})
            print(f"{name} is done.", flush=True)

        if importlib.util.find_spec("xllamacpp") is not None:
            (file,) = export(prompt, "gguf", Path(place, "gguf"), model=model).path.iterdir()
            keep("llama.cpp", in_llama_cpp(file, given, tokenizer))
        del model
        gc.collect()
        for engine, python in pythons.items():
            keep(engine, in_environment(engine, python, folder, cases))
    Console().print(shown(rows))


def own(wanted: list[list[int]], right: list[list[int]], tokenizer: Any) -> dict[str, Any]:
    """demur's own row."""
    answers = [[[], ids] for ids in wanted]
    found = {"openings": right, "answers": answers, "version": version("demur")}
    return compared(found, right, wanted, tokenizer)


if __name__ == "__main__":
    run(main)
