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
    labelled_pair,
    name_of_pair,
    of_both_labels,
    require_one_label,
)
from demur.queries.instructions import load_instructions
from demur.queries.loading import BUILT_IN, KINDS, SPLITS, is_own_set, load_query_set, own_files
from demur.queries.mixing import load_applications, mix_conversations
from demur.queries.query_set import MINIMUM_QUERIES, QuerySet, require
from demur.queries.suites import SUITES, load_suite
from demur.queries.tools import BUILT_IN_TOOLS, load_tools, offering, read_tools
from demur.queries.turns import TURNS, in_turn, load_histories, name_in_turn, queries_in_turn
from demur.queries.words import kind_in_name, queries_in_words
from demur.records import Conversation, Label, Query

__all__ = [
    "BENCHMARKS",
    "BUILT_IN",
    "BUILT_IN_TOOLS",
    "KINDS",
    "MINIMUM_QUERIES",
    "SPLITS",
    "SUITES",
    "TURNS",
    "Benchmark",
    "BenchmarkState",
    "Columns",
    "Conversation",
    "Label",
    "Query",
    "QueryChoice",
    "QuerySet",
    "as_query_set",
    "benchmark_address",
    "benchmark_state",
    "find_benchmark",
    "in_turn",
    "is_own_set",
    "join_query_sets",
    "kind_in_name",
    "labelled",
    "labelled_pair",
    "load_applications",
    "load_benchmark",
    "load_histories",
    "load_instructions",
    "load_query_set",
    "load_suite",
    "load_tools",
    "mix_conversations",
    "name_in_turn",
    "name_of_pair",
    "of_both_labels",
    "offering",
    "own_files",
    "queries_in_turn",
    "queries_in_words",
    "read_tools",
    "require",
    "require_one_label",
]
