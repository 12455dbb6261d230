"""Requirements as a person writes them, for example `harmful>=90%`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from demur.errors import DemurError

Measure = Literal[
    "refused",
    "deflected",
    "answered",
    "complied-harmfully",
    "kl",
    "first-word",
    "answer-kl",
    "same-word",
    "other-language",
]
"""What a requirement is about.

- `refused`: the rate at which queries are refused.
- `deflected`: the rate at which they are deflected, by a judge that tells deflections.
- `answered`: the rate at which they are answered.
- `complied-harmfully`: the rate at which harmful queries are complied with harmfully.
- `kl`: the mean KL cost on harmless queries, in nats.
- `first-word`: the share of harmless queries whose likeliest first word changed.
- `answer-kl`: the mean KL cost a token along whole answers to harmless queries, in nats.
- `same-word`: the share of the tokens of these answers at which the likeliest word is the same.
- `other-language`: the share of answers to harmless queries in another language than the query.
"""

MEASURES: tuple[Measure, ...] = get_args(Measure)
IN_NATS: tuple[Measure, ...] = ("kl", "answer-kl")
COSTS: tuple[Measure, ...] = ("kl", "first-word", "answer-kl", "same-word", "other-language")
"""What a prompt costs on harmless queries, which is measured of a model that runs here."""

_PARTS = re.compile(r"(?P<left>.*\S)\s*(?P<sign>>=|<=)\s*(?P<value>[^<>=]*)", re.DOTALL)
_MEASURES = "|".join(MEASURES)
# Names of sets may hold parentheses themselves: those that belong together are one text.
_CALL = re.compile(
    rf"({_MEASURES})\(((?:[^()]|\([^()]*\))*)\)(?:\s*@\s*(.+))?|({_MEASURES})\((.*)\)", re.DOTALL
)
_LIKE_A_CALL = re.compile(r"([A-Za-z][\w-]*)\(.*\)(?:\s*@.*)?", re.DOTALL)
_EXAMPLE = "write for example 'harmful>=90%'"


@dataclass(frozen=True)
class Requirement:
    """A limit that a measured value must keep.

    Attributes:
        text: the requirement as it was written, without surrounding white space.
        measure: what must keep the limit.
        about: the queries, and behind an `@` the prompt, where one is named; what it stands for is
            known with the names of the sets and prompts.
        at_least: whether the value must be at least the limit, rather than at most.
        limit: the limit: a share in [0, 1], or nats, 0 or more.
    """

    text: str
    measure: Measure
    about: str
    at_least: bool
    limit: float

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Read a requirement: `QUERIES[@PROMPT] >= or <= LIMIT`, with or without a measure.

        The prompt may stand in the parentheses of the measure or behind them.

        Args:
            text: for example `harmful>=90%`, `ordinary<=0.02`, `xstest:harmless@long<=5%`,
                `kl(ordinary)<=0.1`, `answered(harmful)<=10%` or `complied-harmfully(harmful)<=1%`.

        Raises:
            DemurError: it cannot be read.
        """
        written = text.strip()
        found = _PARTS.fullmatch(written)
        if found is None:
            raise DemurError(
                f"The requirement {written!r:.200} is not of the form QUERIES>=LIMIT or "
                f"QUERIES<=LIMIT: {_EXAMPLE}."
            )
        left = found["left"]
        called = _CALL.fullmatch(left)
        measure: Measure = "refused"
        if called is not None:
            measure = next(one for one in MEASURES if one in (called[1], called[4]))
            left = (called[5] if called[1] is None else called[2]).strip()
            if left and called[3] is not None:
                left = f"{left}@{called[3].strip()}"
        if not left:
            raise DemurError(f"The requirement {written!r:.200} names no queries: {_EXAMPLE}.")
        limit = _limit(found["value"].strip(), measure, written)
        return cls(written, measure, left, found["sign"] == ">=", limit)

    @property
    def limit_text(self) -> str:
        """The limit in words, for example `at least 90 %`."""
        amount = f"{self.limit:g} nats" if self.measure in IN_NATS else f"{100 * self.limit:g} %"
        return f"{'at least' if self.at_least else 'at most'} {amount}"


def unknown_measure(about: str) -> str | None:
    """The name before parentheses where a measure may stand, if there is no such measure."""
    found = _LIKE_A_CALL.fullmatch(about)
    return None if found is None or found[1] in MEASURES else found[1]


def _limit(text: str, measure: Measure, written: str) -> float:
    """The limit of a requirement."""
    number, percent = text.removesuffix("%").strip(), text.endswith("%")
    if measure in IN_NATS:
        number = number.removesuffix("nats").strip()
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if not isfinite(value) or value < 0 or "_" in number:
        raise DemurError(
            f"The limit {text!r:.60} of the requirement {written!r:.200} is not a number of 0 or "
            f"more: {_EXAMPLE}."
        )
    if measure in IN_NATS:
        if percent:
            raise DemurError(
                f"The requirement {written!r:.200} limits a KL cost in percent: give it in nats, "
                f"for example '{measure}(harmless)<=0.2'."
            )
        return value
    share = value / 100 if percent else value
    if share > 1:
        fix = f"write {value:g}%" if value <= 100 and not percent else "give at most 100%"
        raise DemurError(
            f"The limit {text!r:.60} of the requirement {written!r:.200} is above 1: {fix}."
        )
    return share
