"""What the name of a set says: what its queries are called in a sentence, and their kind."""

from __future__ import annotations

from demur.queries.benchmark_table import BENCHMARKS
from demur.queries.loading import BUILT_IN, KINDS, SPLITS
from demur.queries.turns import FIRST, THIRD, name_in_turn
from demur.records import Label

_LABELS: tuple[Label, Label] = ("harmful", "harmless")
_SUFFIXES = (name_in_turn("", FIRST, tools=True), name_in_turn("", THIRD))


def queries_in_words(name: str, label: Label | None = None) -> str:
    """What the queries of a set are called, for headings and sentences.

    Args:
        name: name of the set, also of joined ones (`test:borderline+test:ordinary`), in a later
            turn, and of the queries of both labels (`test and test:ordinary`). A name of one's own
            stays as it is.
        label: label of the queries, or None where it is not known.

    Returns:
        for example `borderline and ordinary queries of the test set`, or
        `harmful queries of mine.txt`.
    """
    name, ending = without_turn(name)
    both = _both(name)
    if both is not None and label is None:
        each = (queries_in_words(part, side) for part, side in zip(both, _LABELS, strict=True))
        return ", and ".join(each) + ending
    if both is not None:
        name = both[_LABELS.index(label or "harmful")]
    sets_by_noun: dict[str, list[str]] = {}
    kinds_by_split: dict[str, list[str]] = {}
    for part in _parts(name):
        split, _, kind = part.partition(":")
        if kind in KINDS and split in SPLITS:
            kinds_by_split.setdefault(split, []).append(kind)
            continue
        noun = f"{label} queries" if label else "queries"
        sets_by_noun.setdefault(noun, []).append(_set_in_words(part))
    for split, kinds in kinds_by_split.items():
        sets_by_noun.setdefault(f"{_listed(kinds)} queries", []).append(_set_in_words(split))
    of_sets = [f"{noun} of {_listed(sets)}" for noun, sets in sets_by_noun.items()]
    return ", and ".join(of_sets) + ending


def kind_in_name(name: str) -> str | None:
    """The kind of all queries of a set, `borderline` or `ordinary`, where its name says one.

    Args:
        name: name of the set, also of joined ones and in a later turn.
    """
    parts = without_turn(name)[0].split("+")
    return next((kind for kind in KINDS if all(part.endswith(f":{kind}") for part in parts)), None)


def without_turn(name: str) -> tuple[str, str]:
    """A set's name in the first turn and without tools, and the ending that is left out."""
    ending = ""
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            name, ending = name.removesuffix(suffix), suffix + ending
    return name, ending


def _both(name: str) -> tuple[str, str] | None:
    """The names of the harmful and of the harmless set, where a name is known to hold both.

    A file's name may hold an `and`, so a set of each must be known.
    """
    harmful, _, harmless = name.partition(" and ")
    known = all(any(map(_is_known, one.split("+"))) for one in (harmful, harmless))
    return (harmful, harmless) if known else None


def _parts(name: str) -> list[str]:
    """The names of joined sets. A file's name may hold a `+`, so one of them must be known."""
    parts = name.split("+")
    return parts if any(map(_is_known, parts)) else [name]


def _is_known(name: str) -> bool:
    return name in BUILT_IN or name in BENCHMARKS or name.partition(":")[0] in SPLITS


def _set_in_words(name: str) -> str:
    return f"the {name} set" if name in (*BUILT_IN, *SPLITS) else name


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 2 else words)
