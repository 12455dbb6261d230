"""Outputs for ordinary instructions: the file format, the built-in set, the win rate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from demur.errors import DemurError
from demur.evaluation.alpaca import AlpacaOutputs, win_rate
from demur.judges import Preference
from demur.progress import Progress
from demur.queries import load_instructions


class Scripted:
    """Prefers by the first letter of the first output."""

    name = "scripted"
    fingerprint = "by the first letter"

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    def prefer(
        self,
        instructions: Sequence[str],
        firsts: Sequence[str],
        seconds: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Preference]:
        self.seen = list(zip(instructions, firsts, seconds, strict=True))
        said: dict[str, Preference] = {"w": "first", "l": "second", "t": "tie", "?": None}
        return [said[first[0]] for first in firsts]


def test_the_built_in_instructions() -> None:
    instructions = load_instructions()
    assert len(set(instructions)) == len(instructions) == 60
    assert all(len(text) > 20 and text[-1] in '.?"' for text in instructions)


def test_the_file_is_what_alpaca_eval_reads(tmp_path: Path) -> None:
    file = tmp_path / "new" / "outputs.json"
    outputs = AlpacaOutputs(("Say é.", "Go"), ("é\n", "half \ud83d"), "model + prompt")
    outputs.save(file)
    rows = json.loads(file.read_text(encoding="utf-8"))
    assert rows == [
        {
            "instruction": "Say é.",
            "output": "é\n",
            "generator": "model + prompt",
            "dataset": "demur",
        },
        {
            "instruction": "Go",
            "output": "half ?",
            "generator": "model + prompt",
            "dataset": "demur",
        },
    ]
    assert [path.name for path in file.parent.iterdir()] == ["outputs.json"]
    again = AlpacaOutputs.load(file)
    assert (again.instructions, again.generator) == (outputs.instructions, outputs.generator)
    assert again.outputs[0] == "é\n"


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        '[{"instruction": "i"}]',
        '[{"instruction": "i", "output": 1, "generator": "g"}]',
        '[{"instruction": "i", "output": "", "generator": "g"},'
        ' {"instruction": "j", "output": "", "generator": "h"}]',
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "outputs.json"
    file.write_text(content)
    with pytest.raises(DemurError) as caught:
        AlpacaOutputs.load(file)
    assert "\n" not in str(caught.value)


def test_outputs_must_match_their_instructions() -> None:
    for arguments in (
        (("i",), ("o", "p"), "g"),
        ((), (), "g"),
        (("i", "i"), ("o", "p"), "g"),
        (("i",), ("o",), " "),
    ):
        with pytest.raises(DemurError):
            AlpacaOutputs(*arguments)


def test_win_rate_pairs_by_instruction_and_counts_ties_half() -> None:
    names = tuple("abcdef")
    mine = AlpacaOutputs(names, ("w", "w", "l", "t", "?", "w"), "mine")
    base = AlpacaOutputs(names[::-1], tuple(f"base {name}" for name in names[::-1]), "base")
    judge = Scripted()
    result = win_rate(mine, base, judge)
    assert judge.seen[0] == ("a", "w", "base a")
    assert (result.wins, result.ties, result.losses, result.undecided) == (3, 1, 1, 1)
    assert result.rate is not None
    assert result.rate.value == pytest.approx(3.5 / 5)
    assert result.rate.interval.low < 0.7 < result.rate.interval.high
    assert str(result).startswith("70.0 % (")


def test_a_win_rate_needs_pairs_and_verdicts() -> None:
    mine = AlpacaOutputs(("a",), ("?",), "mine")
    with pytest.raises(DemurError, match="different instructions"):
        win_rate(mine, AlpacaOutputs(("b",), ("x",), "base"), Scripted())
    with pytest.raises(DemurError, match="no verdict on any pair"):
        win_rate(mine, mine, Scripted())
