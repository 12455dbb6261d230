"""How fast a GGUF file is unpacked, beside transformers' own way, in one run.

    python benchmarks/unpack.py [MODEL] [--dtype float32 bfloat16] [--repetitions 3] [--name unpack]

MODEL is a name of the catalog, by default the default model, or a GGUF file. Both ways end with the
dense weights and the tokenizer in a folder: demur's is what `demur` does the first time it opens
the model; the plain one is `from_pretrained(gguf_file=...)`, then `save_pretrained`, and is timed
without the saving as well. They take turns in one process, with the file in the page cache, after
a turn of each that is not counted; the medians count. Prints seconds, MB of the dense weights a
second and the ratios, and keeps them in `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from common import run, write_results
from demur.bars import default_progress
from demur.chat.catalog import CATALOG, DEFAULT_MODEL
from demur.chat.dequantize import dequantized_folder, gguf_fingerprint
from demur.chat.download import pull
from demur.progress import SilentProgress

DTYPES = ("float32", "bfloat16")
OWN, SAVED, LOADED = "demur", "transformers", "transformers, nothing saved"

Result = dict[str, Any]


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--dtype", nargs="+", default=DTYPES, choices=DTYPES)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--name", default="unpack", help="of the results file")
    arguments = parser.parse_args()
    named = arguments.model in CATALOG
    file = pull(arguments.model, default_progress()) if named else Path(arguments.model).resolve()
    file.read_bytes()  # so that the page cache has it for all
    cores = os.cpu_count() if not hasattr(os, "sched_getaffinity") else len(os.sched_getaffinity(0))
    compared(file, arguments.dtype[0], 1)  # which imports the rest, and is not counted
    found = {dtype: compared(file, dtype, arguments.repetitions) for dtype in arguments.dtype}
    show(found, arguments.model if named else file.name, cores)
    write_results(
        arguments.name,
        {
            "model": arguments.model if named else file.name,
            "megabytes of the file": file.stat().st_size / 1e6,
            "cores": cores,
            "repetitions": arguments.repetitions,
            "measured": found,
        },
    )


def compared(file: Path, dtype: str, repetitions: int) -> Result:
    """Both ways in turn: seconds of each repetition, and what the medians come to."""
    ways: dict[str, Callable[[Path, Path, torch.dtype], Path | None]] = {
        OWN: unpack,
        SAVED: unpack_plainly,
        LOADED: load_plainly,
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    size = 0
    for _ in range(repetitions):
        for way, work in ways.items():
            with tempfile.TemporaryDirectory() as scratch:
                started = time.perf_counter()
                folder = work(file, Path(scratch), getattr(torch, dtype))
                seconds[way].append(time.perf_counter() - started)
                if way == OWN and folder is not None:
                    size = sum(one.stat().st_size for one in folder.glob("*.safetensors"))
    middle = {way: statistics.median(times) for way, times in seconds.items()}
    return {
        "dense megabytes": size / 1e6,
        "seconds": middle,
        "megabytes a second": {way: size / 1e6 / each for way, each in middle.items()},
        "times as fast as": {way: middle[way] / middle[OWN] for way in (SAVED, LOADED)},
        "seconds of each repetition": seconds,
    }


def unpack(file: Path, scratch: Path, dtype: torch.dtype) -> Path:
    """As `demur` does, into a cache of its own; what tells the file is part of it."""
    before = os.environ.get("DEMUR_CACHE")
    os.environ["DEMUR_CACHE"] = str(scratch)
    try:
        return dequantized_folder(file, gguf_fingerprint(file), file.stem, dtype, SilentProgress())
    finally:
        if before is None:
            del os.environ["DEMUR_CACHE"]
        else:
            os.environ["DEMUR_CACHE"] = before


def unpack_plainly(file: Path, scratch: Path, dtype: torch.dtype) -> Path:
    """As one writes it with transformers."""
    model, tokenizer = loaded_plainly(file, dtype)
    model.save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    return scratch


def load_plainly(file: Path, scratch: Path, dtype: torch.dtype) -> None:
    """The same without the saving."""
    loaded_plainly(file, dtype)


def loaded_plainly(file: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """Model and tokenizer of a GGUF file by transformers alone."""
    transformers: Any = importlib.import_module("transformers")  # hardly typed
    place: Result = {"gguf_file": file.name, "local_files_only": True}
    options: Result = {}
    if hasattr(transformers, "GgufConfig"):  # before it existed, GGUF was always dequantized
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(file.parent), dtype=dtype, **place, **options
    )
    return model, transformers.AutoTokenizer.from_pretrained(str(file.parent), **place)


def show(found: Result, model: str, cores: int | None) -> None:
    """Print the table."""
    table = Table("dtype", "way", "seconds", "MB/s", "demur's are", title=f"{model}, {cores} cores")
    for dtype, one in found.items():
        for way, seconds in one["seconds"].items():
            ratio = one["times as fast as"].get(way)
            table.add_row(
                dtype,
                way,
                f"{seconds:.2f}",
                f"{one['megabytes a second'][way]:.0f}",
                "" if ratio is None else f"{ratio:.1f} times as fast",
            )
    Console().print(table)


if __name__ == "__main__":
    run(main)
