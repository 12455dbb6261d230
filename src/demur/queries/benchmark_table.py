"""Public benchmarks that demur knows by name: where each is published and how its file is read.

Only facts about the files stand here. Their queries are fetched when they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from demur.errors import DemurError, did_you_mean

Side = Literal["harmful", "harmless", "both"]

NOT_STATED = "not stated"


@dataclass(frozen=True)
class Columns:
    """Which columns of a CSV file with a header row are read.

    Attributes:
        query: holds the queries.
        category: holds one category a query, if there is one.
        label: says `safe` or `unsafe`, where a benchmark has both sides.
        only: a column and the value that it must have; other rows are left out.
    """

    query: str
    category: str | None = None
    label: str | None = None
    only: tuple[str, str] | None = None


@dataclass(frozen=True)
class Benchmark:
    """One published file of queries.

    Attributes:
        name: what it is called here.
        side: the label of its queries, or "both".
        repository: owner and name on the site that hosts it.
        commit: 40 hex digits.
        path: of the file in the repository.
        sha256: of the file as published, 64 hex digits.
        size: of the file, in bytes.
        queries: how many its source states, or None.
        columns: of a CSV file; None where the file has one query a line.
        licence: as its source states it.
    """

    name: str
    side: Side
    repository: str
    commit: str
    path: str
    sha256: str
    size: int
    queries: int | None = None
    columns: Columns | None = None
    licence: str = NOT_STATED

    @property
    def file_name(self) -> str:
        """What the file is called in the cache and in a folder of benchmarks."""
        return self.name + PurePosixPath(self.path).suffix


_PAPER = ("chujiezheng/LLM-Safeguard", "410bfb5c5ae9c17cd73da74a6e648958fd3181cb")
_REFUSAL_DIRECTION = ("andyrdt/refusal_direction", "9d852fae1a9121c78b29142de733cb1340770cc3")
_XSTEST = ("paul-rottger/exaggerated-safety", "d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d")

#: Every benchmark by its name.
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "malicious-instruct",
            "harmful",
            *_PAPER,
            "code/data/MaliciousInstruct.txt",
            "675f7042ae18fd8ce9b79ec656f00824abc840d9954aa75a021db36689dd0002",
            size=6270,
            queries=100,
        ),
        Benchmark(
            "advbench",
            "harmful",
            *_PAPER,
            "code/data/advbench.txt",
            "21e7e0e375548477847ff35af13249c39ac17dcfd3c760953220b245b40e1da2",
            size=38484,
            queries=520,
        ),
        Benchmark(
            "dro-harmful-train",
            "harmful",
            *_PAPER,
            "code/data/custom.txt",
            "72963102a9fdb29f65044bc12ac54caab471f2a3f071dcd05cf8f8cb72873129",
            size=6361,
            queries=100,
        ),
        Benchmark(
            "dro-harmless-train",
            "harmless",
            *_PAPER,
            "code/data_harmless/custom.txt",
            "919fc2d4422dcf940b2560b5378d3f56c30fc60d48d67dcaebdb8f1cabc07848",
            size=6132,
            queries=100,
        ),
        Benchmark(
            "dro-harmless-heldout",
            "harmless",
            *_PAPER,
            "code/data_harmless/testset.txt",
            "d4ca81cd544de1489eea608e5ddb3093af51d21c0981e0ba351f7ed1c379452a",
            size=6231,
            queries=100,
        ),
        Benchmark(
            "jailbreakbench",
            "harmful",
            *_REFUSAL_DIRECTION,
            "dataset/raw/jailbreakbench.csv",
            "45e9a8923b28f547bb372fbaa9af7df8b38c818a80ae50c3bab97704197ff516",
            size=23111,
            columns=Columns("Goal", category="Category"),
        ),
        Benchmark(
            "strongreject",
            "harmful",
            *_REFUSAL_DIRECTION,
            "dataset/raw/strongreject.csv",
            "4dd70357e4ff8b5d0ba5ebafecab5d6dd5633ce8046e3dd1c8bd93e64de44381",
            size=56359,
            columns=Columns("forbidden_prompt", category="category"),
        ),
        Benchmark(
            "harmbench",
            "harmful",
            *_REFUSAL_DIRECTION,
            "dataset/raw/harmbench_test.csv",
            "75d257b3e7428c52eb7b0154318f455af3e01b09a3794b5e2f3d36054f3c0e29",
            size=160828,
            # The other behaviours are no queries by themselves: they need a context, or ask for
            # copyrighted text, which is another harm than the one that is measured here.
            columns=Columns("Behavior", only=("FunctionalCategory", "standard")),
        ),
        Benchmark(
            "xstest",
            "both",
            *_XSTEST,
            "xstest_prompts.csv",
            "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a",
            size=38719,
            queries=450,
            columns=Columns("prompt", category="type", label="label"),
            licence="CC-BY-4.0",
        ),
    )
}


def find_benchmark(name: str) -> Benchmark:
    """Look a benchmark up by name.

    Raises:
        DemurError: no such name; the message has the nearest one and lists them all.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    raise DemurError(
        f"No benchmark is called {name!r:.100}{did_you_mean(name, BENCHMARKS)}: choose one of "
        f"{', '.join(BENCHMARKS)}."
    )
