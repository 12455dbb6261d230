"""A GPU at work on a model of random weights, each part against what one writes with transformers.

    python benchmarks/gpu.py [--shape qwen2.5-7b] [--dtype bfloat16] [--device cuda]
        [--only steps responses run] [--long 60]

Needs no network: `engine_shapes.py` makes the model. Steps of 8, 16 and 50 queries stand beside a
step on one padded batch, and 400 responses of 48 tokens beside one `generate`; each is timed when
what is recorded was recorded. A whole run of the preset `standard` follows, whose verdicts are
drawn by a hash, because random weights say nothing that could be judged; the seconds of each of its
epochs are kept, so that a slow first one shows. `--long` adds responses as
the paper samples them, 25 of 300 tokens to each of so many queries. Before all of it, gradients
and samples of a small model in float32 are compared with the plain path. Prints what it measures
and keeps it in `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from common import run, write_results
from demur import optimize
from demur.chat import ChatModel, Condition
from demur.chat.engine import SamplingSettings
from demur.cli.stages import TerminalProgress
from demur.judges.paper import PaperRefusalJudge
from demur.optimization.loop import TRAINING
from demur.progress import Stage
from engine_peak import matrix_peak, necessary_operations
from engine_peers import sample_batched, step_batched
from engine_shapes import PREFIX, SHAPES, load
from engine_texts import prompt_of, queries
from engine_ways import demur_step

PROMPT, QUERIES = 100, (8, 16, 50)
PARTS = ("steps", "responses", "run")

Result = dict[str, Any]


def coin(_queries: Sequence[str | None], responses: Sequence[str]) -> list[bool | str | None]:
    """Takes three tenths of all responses for refusals, by a hash of their text."""
    return [hashlib.sha256(one.encode()).digest()[0] < 77 for one in responses]


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", default="qwen2.5-7b", choices=sorted(SHAPES))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--long", type=int, default=0, metavar="QUERIES")
    parser.add_argument("--preset", default="standard", choices=("quick", "standard", "thorough"))
    parser.add_argument("--name", help="of the results file")
    arguments = parser.parse_args()
    found: Result = {"exactness": tell("exactness", exactness(arguments.device))}
    model = load(
        f"{PREFIX}{arguments.shape}", arguments.dtype, arguments.device, keep_freed_memory=True
    )
    if "steps" in arguments.only:
        found["steps"] = tell("steps", steps(model))
    if "responses" in arguments.only:
        found["responses"] = tell("responses", responses(model))
    if arguments.long:
        found["long"] = tell("long", long_responses(model, arguments.long))
    if "run" in arguments.only:
        found["run"] = tell("run", whole_run(model, arguments.preset))
    device = model.device
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    settings = {"shape": arguments.shape, "dtype": arguments.dtype, "prompt": PROMPT}
    write_results(
        arguments.name or f"gpu-{arguments.shape}", {"card": card, **settings, "measured": found}
    )


def tell(what: str, found: Result) -> Result:
    """Print what was measured."""
    print(what, *(f"\n    {name}: {value}" for name, value in found.items()), flush=True)
    return found


def timed(model: ChatModel, work: Callable[[], object], repetitions: int = 7) -> float:
    """Seconds of the median repetition, after three that nobody counts."""
    times = []
    for turn in range(3 + repetitions):
        started = time.perf_counter()
        work()
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        if turn >= 3:
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def exactness(device: str) -> Result:
    """How far gradients and samples of a small model in float32 are from the plain path's."""
    model = load(f"{PREFIX}tiny", "float32", device, keep_freed_memory=False)
    texts, condition = queries(12), Condition(prompt_of(model, PROMPT))
    step = demur_step(model, prompt_of(model, PROMPT), texts)
    settings = SamplingSettings(samples=3, most_tokens=20)
    gradient = [step()[1] for _ in range(3)][-1]
    said = [model.read_and_sample(texts, condition, settings).samples for _ in range(3)][-1]
    model.engine.shares_prefix = False
    plain, plainly = step()[1], model.read_and_sample(texts, condition, settings).samples
    pairs = [pair for both in zip(said, plainly, strict=True) for pair in zip(*both, strict=True)]
    return {
        "gradient, relative difference": float((gradient - plain).norm() / plain.norm()),
        "samples that are the same": sum(one.text == other.text for one, other in pairs),
        "samples": len(pairs),
    }


def steps(model: ChatModel) -> Result:
    """Training steps, and the same on one padded batch."""
    peak = matrix_peak(model)
    found: Result = {"matrix peak, TFLOP/s": peak / 1e12}
    prompt = prompt_of(model, PROMPT)
    for count in QUERIES:
        seconds = timed(model, demur_step(model, prompt, queries(count)))
        operations = necessary_operations(model, queries(count), prompt)
        found[f"{count} queries, ms"] = 1e3 * seconds
        found[f"{count} queries, share of the peak"] = operations / seconds / peak
    with plain_attention(model):
        for count in (QUERIES[0], QUERIES[-1]):
            task = {"prompt": PROMPT, "queries": count, "repetitions": 5}
            found[f"{count} queries in one padded batch, ms"] = (
                1e3 * (step_batched(model, task)["seconds"])
            )
    return found


def responses(model: ChatModel) -> Result:
    """400 responses, and the same from one `generate`."""
    task = {"prompt": PROMPT, "queries": 100, "samples": 4, "tokens": 48}
    settled = PaperRefusalJudge().is_settled
    settings = SamplingSettings(samples=task["samples"], most_tokens=task["tokens"])
    condition = Condition(prompt_of(model, PROMPT))
    count = task["queries"] * task["samples"]

    def sample() -> None:
        model.read_and_sample(queries(task["queries"]), condition, settings, settled=settled)

    own = count / timed(model, sample, 1)
    with plain_attention(model):
        batched = sample_batched(model, task)
    peer = batched["responses"] / batched["seconds"]
    return {"a second": own, "a second by generate": peer, "ratio": own / peer}


def long_responses(model: ChatModel, count: int) -> Result:
    """25 responses of 300 tokens to each query; random ones are never settled before."""
    settings = SamplingSettings(samples=25, most_tokens=300)
    condition = Condition(prompt_of(model, PROMPT))
    started = time.perf_counter()
    read = model.read_and_sample(
        queries(count), condition, settings, settled=PaperRefusalJudge().is_settled
    )
    seconds = time.perf_counter() - started
    tokens = sum(sample.tokens for samples in read.samples for sample in samples)
    return {"queries": count, "seconds": seconds, "tokens a second": tokens / seconds}


def whole_run(model: ChatModel, preset: Any) -> Result:
    """A run of the default method, from the loaded model to the results."""
    with tempfile.TemporaryDirectory() as folder:
        progress = StepTimes()
        started = time.perf_counter()
        trained = optimize(
            model, output=Path(folder) / "run", preset=preset, judge=coin, progress=progress
        )
        seconds = time.perf_counter() - started
        steps = len(progress.seconds) // len(trained.history)
        epochs = [
            sum(progress.seconds[first : first + steps])
            for first in range(0, len(progress.seconds), steps)
        ]
        return {
            "preset": preset,
            "seconds": seconds,
            "steps in an epoch": steps,
            "first step, seconds": progress.seconds[0],
            "steps of each epoch, seconds": epochs,
        }


class StepTimes(TerminalProgress):
    """Progress in the terminal that keeps how long each step of the training took.

    Validation and mining come between the epochs, in stages of their own, and are not in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    @contextmanager
    def stage(self, description: str, total: float, unit: str = "") -> Iterator[Stage]:
        """Begin a stage; that of the training is timed."""
        with super().stage(description, total, unit) as shown:
            yield TimedStage(shown, self.seconds) if description.startswith(TRAINING) else shown


class TimedStage:
    """A stage of the training, which is told first how many steps are done, and then each one."""

    def __init__(self, shown: Stage, seconds: list[float]) -> None:
        self._shown, self._seconds = shown, seconds
        self._last: float | None = None

    def advance(self, amount: float = 1) -> None:
        """Keep the seconds since the step before."""
        now = time.perf_counter()
        if self._last is not None:
            self._seconds.append(now - self._last)
        self._last = now
        self._shown.advance(amount)

    def note(self, text: str) -> None:
        """Show it."""
        self._shown.note(text)


@contextmanager
def plain_attention(model: ChatModel) -> Iterator[None]:
    """The attention that transformers takes by itself, inside."""
    network = model.engine.model
    own = network.config._attn_implementation
    network.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        network.set_attn_implementation(own)


if __name__ == "__main__":
    run(main)
