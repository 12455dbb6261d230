"""Labelled queries: what the directions are estimated from and what prompts are judged on."""

from demur.queries.benchmark_table import BENCHMARKS, Benchmark, Columns, find_benchmark
from demur.queries.benchmarks import (
    BenchmarkState,
    benchmark_address,
    benchmark_state,
    load_benchmark,
)
from demur.queries.choosing import (
    QueryChoice,
    as_query_set,
    join_query_sets,
    labelled,
)
from demur.queries.instructions import load_instructions
from demur.queries.loading import BUILT_IN, KINDS, SPLITS, load_query_set
from demur.queries.query_set import MINIMUM_QUERIES, QuerySet, require
from demur.records.responses import Label

__all__ = [
    "BENCHMARKS",
    "BUILT_IN",
    "KINDS",
    "MINIMUM_QUERIES",
    "SPLITS",
    "Benchmark",
    "BenchmarkState",
    "Columns",
    "Label",
    "QueryChoice",
    "QuerySet",
    "as_query_set",
    "benchmark_address",
    "benchmark_state",
    "find_benchmark",
    "join_query_sets",
    "labelled",
    "load_benchmark",
    "load_instructions",
    "load_query_set",
    "require",
]
