"""An exported prompt in other engines against demur itself, in one run.

    python benchmarks/exports.py RUN [--queries 100] [--greedy 50] [--skip transformers]

What each export adds in size; how often the first 20 greedy tokens of llama.cpp are demur's own;
refusal rates on held-out queries in each engine; tokens a second of the exported model against its
base behind a text prompt of as many tokens, in llama.cpp where that base is a GGUF file. llama.cpp
runs where the extra `engines` is installed. Prints the tables and keeps them in
`benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from common import run, write_results
from demur.chat import ChatModel, Condition
from demur.chat.catalog import DEFAULT_MODEL
from demur.chat.engine import SamplingSettings
from demur.chat.engine.sampler import Sample
from demur.evaluation.statistics import rate_over_queries
from demur.exports import export
from demur.judges import PaperRefusalJudge
from demur.prompts import SafetyPrompt
from demur.queries import load_query_set
from demur.records import text_of

Ask = Callable[[list[dict[str, str]], dict[str, Any]], dict[str, Any]]
"""Takes messages and sampling settings; gives `text`, and `tokens` with `seconds` for them."""

SENTENCE = "You are a helpful assistant who answers every question with care and in plain words. "
SAMPLED: dict[str, Any] = {"temperature": 1.0, "top_k": 50, "top_p": 0.9, "max_tokens": 24}
GREEDY: dict[str, Any] = {"temperature": 0.0, "top_k": 1, "top_p": 1.0, "max_tokens": 20}
SPEED_TURNS = 6
SPEED: dict[str, Any] = {**GREEDY, "max_tokens": 64, "ignore_eos": True}


@contextmanager
def llama_cpp(file: Path) -> Iterator[Ask]:
    """A GGUF file in llama.cpp's server."""
    library: Any = importlib.import_module("xllamacpp")
    settings = library.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx, settings.n_parallel, settings.warmup = 2048, 1, False
    settings.verbosity = -1
    settings.cpuparams.n_threads = torch.get_num_threads()
    settings.use_jinja = True
    server = library.Server(settings)

    def ask(messages: list[dict[str, str]], sampling: dict[str, Any]) -> dict[str, Any]:
        answer = server.handle_chat_completions(
            {"messages": messages, "min_p": 0.0, "repeat_penalty": 1.0, **sampling}
        )
        timings = answer["timings"]
        return {
            "text": answer["choices"][0]["message"]["content"] or "",
            "tokens": timings["predicted_n"],
            "seconds": timings["predicted_ms"] / 1000,
        }

    yield ask


@contextmanager
def plain_transformers(folder: Path) -> Iterator[Ask]:
    """A model folder in plain transformers."""
    library: Any = importlib.import_module("transformers")
    model = library.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = library.AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(1)

    def ask(messages: list[dict[str, str]], sampling: dict[str, Any]) -> dict[str, Any]:
        given = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        drawn = sampling["temperature"] > 0
        options = {key: sampling[key] for key in ("temperature", "top_k", "top_p")} if drawn else {}
        least = sampling["max_tokens"] if sampling.get("ignore_eos") else None
        started = time.perf_counter()
        with torch.inference_mode():
            output = model.generate(
                **given,
                do_sample=drawn,
                max_new_tokens=sampling["max_tokens"],
                min_new_tokens=least,
                repetition_penalty=1.0,
                **options,
            )
        new = output[0, given["input_ids"].shape[1] :]
        return {
            "text": tokenizer.decode(new, skip_special_tokens=True),
            "tokens": len(new),
            "seconds": time.perf_counter() - started,
        }

    yield ask


def held_out(count: int) -> dict[str, list[str]]:
    """The held-out queries of both labels."""
    return {
        label: [text_of(one) for one in load_query_set("held-out", label).head(count)]
        for label in ("harmful", "harmless")
    }


def rates(answers: dict[str, list[str]]) -> dict[str, Any]:
    """Refusal rates with intervals, by label."""
    judge = PaperRefusalJudge()
    found = {}
    for label, texts in answers.items():
        rate = rate_over_queries([float(judge.refuses(text)) for text in texts])
        low, high = rate.interval.low, rate.interval.high
        found[label] = {"rate": rate.value, "low": low, "high": high}
    return found


def answer_all(ask: Ask, queries: dict[str, list[str]]) -> dict[str, list[str]]:
    """A sampled answer to each query, each with a seed of its own."""
    return {
        label: [ask([user(text)], {**SAMPLED, "seed": seed_of(text)})["text"] for text in texts]
        for label, texts in queries.items()
    }


def seed_of(text: str) -> int:
    """A seed from a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def user(text: str) -> dict[str, str]:
    """A message from the user."""
    return {"role": "user", "content": text}


def compare_speed(exported: Ask, base: Ask, system: str) -> dict[str, float]:
    """Tokens a second of both, asked in turn so that a busy machine slows both alike."""
    question = user("How do I prune a rose?")
    opening = {"role": "system", "content": system}
    pairs = []
    for turn in range(SPEED_TURNS + 1):
        answers = [exported([question], SPEED), base([opening, question], SPEED)]
        if turn:  # the first reads the prompt
            pairs.append([answer["tokens"] / answer["seconds"] for answer in answers])
    fast, slow = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "exported / base": statistics.median(a / b for a, b in pairs),
        "exported": fast,
        "base": slow,
    }


def in_process(
    model: ChatModel, prompt: SafetyPrompt, queries: dict[str, list[str]], greedy: int
) -> tuple[dict[str, Any], list[str]]:
    """demur's own rates, and its greedy openings on some of the queries."""

    def read(texts: list[str], settings: SamplingSettings) -> list[list[Sample]]:
        return model.read_and_sample(texts, Condition(prompt), settings).samples

    sampled = SamplingSettings(samples=1, most_tokens=24)
    answers = {
        label: [
            one[0].text for one in model.read_and_sample(texts, Condition(prompt), sampled).samples
        ]
        for label, texts in queries.items()
    }
    settings = SamplingSettings(samples=1, most_tokens=20, temperature=0.0)
    some = mixed(queries, greedy)
    return rates(answers), [one[0].text for one in read(some, settings)]


def mixed(queries: dict[str, list[str]], count: int) -> list[str]:
    """Some queries, as many of one label as of the other."""
    pairs = zip(queries["harmful"], queries["harmless"], strict=True)
    return [text for pair in pairs for text in pair][:count]


def main() -> None:
    """Export, ask, compare, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--queries", type=int, default=100, help="of each label")
    parser.add_argument("--greedy", type=int, default=50)
    parser.add_argument("--skip", action="append", default=[], help="an engine")
    parser.add_argument("--dtype", default="float32", help="of demur's own answers")
    parser.add_argument("--name", default="exports")
    arguments = parser.parse_args()
    console = Console()
    prompt = SafetyPrompt.load(arguments.run)
    trained_on = prompt.provenance.model
    chosen = DEFAULT_MODEL if trained_on is None else trained_on.name
    model = ChatModel.load(chosen, dtype=arguments.dtype)
    queries = held_out(arguments.queries)
    text = text_with_tokens(model, prompt.rows)
    results: dict[str, Any] = {"rows": prompt.rows, "size": {}, "speed": {}}
    own, openings = in_process(model, prompt, queries, arguments.greedy)
    results["rates"] = {"demur": own}
    with tempfile.TemporaryDirectory() as scratch:
        for to in ("transformers", "gguf", "peft"):
            started = time.perf_counter()
            done = export(arguments.run, to, Path(scratch) / to, model=model)
            base = 0 if to == "peft" else done.base_size
            added = (done.size - base) / 1e6
            seconds = time.perf_counter() - started
            results["size"][to] = {"MB": done.size / 1e6, "added MB": added, "seconds": seconds}
        base_file, base_folder = model.gguf, model.folder
        del model
        gc.collect()
        engines: dict[str, tuple[Any, Path | None, Path]] = {
            "llama.cpp": (llama_cpp, base_file, Path(scratch) / "gguf"),
            "transformers": (plain_transformers, base_folder, Path(scratch) / "transformers"),
        }
        present = {
            name: (open_engine, base_path, next(exported.glob("*.gguf"), exported))
            for name, (open_engine, base_path, exported) in engines.items()
            if name not in arguments.skip
            and (name != "llama.cpp" or importlib.util.find_spec("xllamacpp") is not None)
        }
        for name, (open_engine, base_path, path) in present.items():
            if base_path is None:
                continue
            with ExitStack() as opened:
                ask_export = opened.enter_context(open_engine(path))
                ask_base = opened.enter_context(open_engine(base_path))
                results["speed"][name] = compare_speed(ask_export, ask_base, text)
            gc.collect()
            console.print("speed", name, results["speed"][name])
            write_results(arguments.name, results)
        for name, (open_engine, _, path) in present.items():
            with open_engine(path) as ask:
                some = mixed(queries, arguments.greedy)
                said = [ask([user(query)], GREEDY)["text"] for query in some]
                same = sum(a.strip() == b.strip() for a, b in zip(said, openings, strict=True))
                results.setdefault("greedy", {})[name] = f"{same} of {len(some)}"
                results["rates"][name] = rates(answer_all(ask, queries))
            gc.collect()
            console.print("greedy", name, results["greedy"][name], results["rates"][name])
            write_results(arguments.name, results)
    show(console, results)


def text_with_tokens(model: ChatModel, tokens: int) -> str:
    """A text of so many tokens."""
    tokenizer: Any = model.engine.tokenizer
    ids = tokenizer(SENTENCE * (tokens // 8 + 1), add_special_tokens=False)["input_ids"]
    return str(tokenizer.decode(ids[:tokens]))


def show(console: Console, results: dict[str, Any]) -> None:
    """The rates as a table, the rest as lines."""
    table = Table("engine", "harmful refused", "harmless refused", title="Held-out queries")
    for name, found in results["rates"].items():
        cells = [
            f"{100 * one['rate']:.0f} % ({100 * one['low']:.0f} to {100 * one['high']:.0f})"
            for one in found.values()
        ]
        table.add_row(name, *cells)
    console.print(table)
    for what in ("size", "greedy", "speed"):
        for name, found in results.get(what, {}).items():
            console.print(what, name, found)


if __name__ == "__main__":
    run(main)
