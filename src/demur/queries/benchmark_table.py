"""Public benchmarks that demur knows by name: where each is published and how its file is read.

Only facts about the files stand here. Their queries are fetched when they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from demur.errors import DemurError, did_you_mean

Side = Literal["harmful", "harmless", "borderline", "both"]
"""What a benchmark holds. Borderline queries sound harmful and are not: their label is harmless."""

Host = Literal["github", "hub"]
"""Where a file is published: in a repository on GitHub, or as a data set on the model hub."""

NOT_STATED = "not stated"


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are read: a CSV file with a header row, JSON lines, or JSON.

    Attributes:
        query: holds the queries. A row without one, as where an attack failed, is left out.
        category: holds one category a query, if there is one.
        label: says `safe` or `unsafe`, where a benchmark has both sides.
        only: a column and the value that it must have; other rows are left out.
        rows: in JSON, the field of the document that holds the rows.
    """

    query: str
    category: str | None = None
    label: str | None = None
    only: tuple[str, str] | None = None
    rows: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """One published file of queries.

    Attributes:
        name: what it is called here.
        side: what its queries are.
        repository: owner and name on the site that hosts it.
        commit: 40 hex digits.
        path: of the file in the repository.
        sha256: of the file as published, 64 hex digits.
        size: of the file, in bytes.
        queries: how many its source states, or None.
        columns: of a table; None where the file has one query a line.
        licence: as its source states it.
        kept_sha256: of what is kept of a file that has harmful answers beside its queries, 64 hex
            digits: only the columns that are read. None where the file is kept as published.
        host: where the repository is; on the hub it is a data set, and `commit` its revision.
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
    kept_sha256: str | None = None
    host: Host = "github"

    @property
    def file_name(self) -> str:
        """What the file is called in the cache and in a folder of benchmarks."""
        return self.name + PurePosixPath(self.path).suffix


_PAPER = ("chujiezheng/LLM-Safeguard", "410bfb5c5ae9c17cd73da74a6e648958fd3181cb")
_REFUSAL_DIRECTION = ("andyrdt/refusal_direction", "9d852fae1a9121c78b29142de733cb1340770cc3")
_XSTEST = ("paul-rottger/exaggerated-safety", "d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d")
_OVERKILL = ("InvokerStark/OverKill", "9551a7ff7b2cb18d178e64fb5cc95e4684311b3b")
_COCONOT = ("allenai/noncompliance", "25bf77cc668814360405cdb8197c4368205806c7")
_SIMPLE = ("bertiev/SimpleSafetyTests", "d7aee9a9422a5a5488f478fd79c2479c891c0f3b")
_ARTIFACTS = ("JailbreakBench/artifacts", "909e68c01d94222b8ad2e397a017e2e12e2adb73")
_JBB = ("JailbreakBench/JBB-Behaviors", "886acc352a31533ffbcf4ef22c744658688086fc")
_OR_BENCH = ("bench-llm/or-bench", "e36d8b80e81837c8a8f264bbb2a49f1b32c7e272")
_ATTACKED = Columns("prompt", category="category", rows="jailbreaks")

# HarmBench's other behaviours are no queries by themselves: they need a context, or ask for
# copyrighted text, which is another harm than the one that is measured here.
_HARMBENCH = Columns("Behavior", only=("FunctionalCategory", "standard"))


def _attacked(name: str, path: str, sha256: str, kept_sha256: str, size: int) -> Benchmark:
    """Queries of JailbreakBench as an attack on a model wrote them."""
    return Benchmark(
        name,
        "harmful",
        *_ARTIFACTS,
        f"attack-artifacts/{path}/vicuna-13b-v1.5.json",
        sha256,
        size=size,
        columns=_ATTACKED,
        licence="MIT",
        kept_sha256=kept_sha256,
    )


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
            columns=_HARMBENCH,
        ),
        Benchmark(
            "harmbench-validation",
            "harmful",
            *_REFUSAL_DIRECTION,
            "dataset/raw/harmbench_val.csv",
            "7bfaaa5e2b9b95002c89e2d33c019f58e9e8496e2fc65d368f1eeb8179e69534",
            size=38024,
            columns=_HARMBENCH,
        ),
        Benchmark(
            "simple-safety-tests",
            "harmful",
            *_SIMPLE,
            "SimpleSafetyTests - test cases.csv",
            "6d95a1301e0d0f3a3c4cf5392f4afff11ad6e3066f95d23aaa138d44aedf986c",
            size=12610,
            queries=100,
            columns=Columns("prompts_final", category="harm_area"),
            licence="CC-BY-4.0",
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
        Benchmark(
            "oktest",
            "borderline",
            *_OVERKILL,
            "data/OKTest.csv",
            "1be3e8d3fe6b45a170653da63c8cf70dbf97508a48735e65db0713a44e158860",
            size=22289,
            queries=300,
            columns=Columns("prompt"),
        ),
        Benchmark(
            "coconot-contrast",
            "borderline",
            *_COCONOT,
            "data/coconot_contrast_eval.jsonl",
            "76dccec176743ed656279f2969c51abb68bda94e5fda8397e34ff5638e021d86",
            size=69278,
            queries=149,
            # The other contrasts are about questions that nobody can answer.
            columns=Columns(
                "prompt", category="subcategory", only=("category", "Requests with safety concerns")
            ),
            licence="MIT",
        ),
        Benchmark(
            "jailbreakbench-benign",
            "borderline",
            *_JBB,
            "data/benign-behaviors.csv",
            "3cda234d21a991fa309bbfea4b6d9dae31ccdf8e9d452424b6a983e4fdc33468",
            size=20570,
            queries=100,
            columns=Columns("Goal", category="Category"),
            licence="MIT",
            host="hub",
        ),
        Benchmark(
            "or-bench-hard",
            "borderline",
            *_OR_BENCH,
            "or-bench-hard-1k.csv",
            "a6e2f1166416efe5901f3bb05c47dc92ab3aca3acfe143693d38b8057d841e6d",
            size=169255,
            queries=1319,
            columns=Columns("prompt", category="category"),
            licence="CC-BY-4.0",
            host="hub",
        ),
        _attacked(
            "jbb-attacked-pair",
            "PAIR/black_box",
            "18b101386419a98fbdf45cb987069f83af3a40d5e0f7f0d32c4e9dc5ecc049b4",
            "1e4449af451300b024fba658b2870054ba16d3426774efc58bb889ebadb5f97d",
            size=149383,
        ),
        _attacked(
            "jbb-attacked-gcg",
            "GCG/white_box",
            "9eff8b6f78cae002737868ca8cdd886be5afcd1cbbbe4cf51ff837bc688b01b1",
            "81b3d984b988a36e5200abafe8721663212eff01104ca96539b2a212c9b39cde",
            size=134533,
        ),
        _attacked(
            "jbb-attacked-dsn",
            "DSN/white_box",
            "ea0a5f7331baf595fb6e6925423f43367cbce8da9273ce93c6a03e2201e3373d",
            "35c4b3fba68735e61e5fedf7e62f72e2cadf20bcedfa3aac85bdec854f2a3883",
            size=128486,
        ),
        _attacked(
            "jbb-attacked-jbc",
            "JBC/manual",
            "1d5df5aa451c3d1bb8a4c048a7b2e1e6132e72f2970cb9d94ffc77f44e0edb39",
            "2f3e1360cd9deb9e02ad58e46df79a76e41dd3a1f0fceb110cfa1b94bbee3ac7",
            size=298772,
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
