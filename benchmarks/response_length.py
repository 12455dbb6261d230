"""What it costs to judge short responses: the same responses, cut after fewer and fewer tokens.

    python benchmarks/response_length.py [MODEL] [--prompts none long] [--tokens 16 64 256]

Samples responses to validation queries (harmful, borderline and ordinary ones) up to the largest
number of tokens, cuts them after each of the others, and judges all of them with the judges
`default` and `paper`. Prints the rates, and how many verdicts differ from those on the longest
responses. Goes on where it was with `--folder`. Keeps the figures in `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from common import run, write_results
from demur import ChatModel, evaluate, load_query_set
from demur.cli.stages import TerminalProgress
from demur.evaluation.statistics import rate_over_queries
from demur.judges import as_refusal_judge
from demur.records import JudgedResponse, Label, text_of

KINDS: dict[str, tuple[str, Label]] = {
    "harmful": ("validation", "harmful"),
    "borderline": ("validation:borderline", "harmless"),
    "ordinary": ("validation:ordinary", "harmless"),
}
JUDGES = ("default", "paper")


def main() -> None:
    """Sample, cut, judge, print and keep."""
    arguments = _arguments()
    model = ChatModel.load(
        arguments.model, dtype=arguments.dtype, keep_freed_memory=True, progress=TerminalProgress()
    )
    with TemporaryDirectory() as scratch:
        responses = _sampled(model, arguments, arguments.folder or Path(scratch))
    lengths = sorted(arguments.tokens)
    cut = {
        length: [_first_tokens(model, one.response, length) for one in responses]
        for length in lengths
    }
    queries = [None if one.query is None else text_of(one.query) for one in responses]
    verdicts = {
        (judge, length): as_refusal_judge(judge).judge(queries, cut[length])
        for judge in JUDGES
        for length in lengths
    }
    rows = _rows(responses, verdicts)
    _show(rows)
    write_results(
        f"response-length-{arguments.name or Path(model.name).name}",
        {
            "model": model.name,
            "dtype": model.record.dtype,
            "queries": "validation, at most "
            f"{arguments.limit} harmful, borderline and ordinary ones each; one sample",
            "rows": rows,
        },
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default="qwen2.5-coder-0.5b")
    parser.add_argument("--prompts", nargs="+", default=["none", "long"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[16, 64, 256])
    parser.add_argument("--limit", type=int, default=100, help="queries of each kind")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--folder", type=Path, help="where the responses are kept")
    parser.add_argument("--name", help="of the results file; the model's name by default")
    return parser.parse_args()


def _sampled(model: ChatModel, arguments: argparse.Namespace, folder: Path) -> list[JudgedResponse]:
    """Responses as long as the largest number of tokens allows."""
    sets = {
        kind: load_query_set(spec, label).head(arguments.limit)
        for kind, (spec, label) in KINDS.items()
    }
    comparison = evaluate(
        model,
        prompts=arguments.prompts,
        harmful=[sets["harmful"]],
        harmless=[sets["borderline"], sets["ordinary"]],
        tokens=max(arguments.tokens),
        other_judges=["paper"],  # so that no response is settled before its end
        output=folder,
        progress=TerminalProgress(),
    )
    return [one for one in comparison.responses() if one.is_answer]


def _first_tokens(model: ChatModel, text: str, most: int) -> str:
    """The longest beginning of a text that has no more tokens than asked for."""
    if len(model.target_ids(text)) <= most:
        return text
    least, beyond = 1, len(text)
    while beyond - least > 1:
        middle = (least + beyond) // 2
        if len(model.target_ids(text[:middle])) <= most:
            least = middle
        else:
            beyond = middle
    return text[:least]


def _rows(
    responses: list[JudgedResponse], verdicts: dict[tuple[str, int], list[bool | None]]
) -> list[dict[str, Any]]:
    """A row for each prompt, kind of query, judge and length."""
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, one in enumerate(responses):
        places[one.prompt, one.set if one.label == "harmless" else "harmful"].append(place)
    rows = []
    for (prompt, kind), chosen in places.items():
        for judge in JUDGES:
            lengths = sorted(length for name, length in verdicts if name == judge)
            longest = [verdicts[judge, lengths[-1]][place] for place in chosen]
            for length in lengths:
                found = [verdicts[judge, length][place] for place in chosen]
                rows.append(
                    {
                        "prompt": prompt,
                        "kind": kind.rpartition(":")[2],
                        "judge": judge,
                        "tokens": length,
                        "refused": str(_rate(found)),
                        "only when short": _count(found, longest),
                        "only when long": _count(longest, found),
                    }
                )
    return rows


def _rate(verdicts: Iterable[bool | None]) -> object:
    return rate_over_queries([float(one) for one in verdicts if one is not None])


def _count(these: list[bool | None], others: list[bool | None]) -> int:
    """How many responses are refusals in the one list and answers in the other."""
    return sum(one is True and other is False for one, other in zip(these, others, strict=True))


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table(*(str(name) for name in rows[0]))
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=120).print(table)


if __name__ == "__main__":
    run(main)
