"""Every answer of a run, kept by what was asked, and the budget that they are counted against.

A run that goes on does all of its steps again from the beginning. What was asked before is answered
from here, so that nothing is asked twice and every step comes out as it did.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from demur.endpoint import Answer, AnswerKind, Asked
from demur.errors import DemurError
from demur.records import fingerprint
from demur.records.kept import KeptRecords

FOLDER = "answers"
TEMPLATE_TOKENS = 256
"""Tokens that a chat template may add to a request of which no answer is known yet."""

UNLIMITED_TOKENS = 4096
"""Tokens that are allowed for an answer whose request sets no limit."""


@dataclass(frozen=True)
class Spent:
    """What was asked.

    Attributes:
        calls: number of requests.
        tokens: number of tokens, read and written together.
    """

    calls: int = 0
    tokens: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.calls + other.calls, self.tokens + other.tokens)

    def fits(self, budget: Spent) -> bool:
        """Whether it is within a budget."""
        return self.calls <= budget.calls and self.tokens <= budget.tokens


class BudgetSpent(DemurError):
    """The next requests do not fit into the budget, so none of them was made."""


@dataclass(frozen=True)
class KeptAnswer:
    """An answer as it is stored: one line of `answers.jsonl`.

    Attributes:
        key: fingerprint of everything that was asked.
        kind: what the answer holds.
        text: text of the answer, or None.
        finish: reason why it ended, or None.
        prompt_tokens: number of tokens read; 0 where that is not known.
        completion_tokens: number of tokens written; 0 where that is not known.
        left_out: names of the options that the endpoint does not take.
        limit: name under which the limit of tokens was sent instead, or None.
    """

    key: str
    kind: AnswerKind
    text: str | None
    finish: str | None
    prompt_tokens: int
    completion_tokens: int
    left_out: tuple[str, ...]
    limit: str | None

    @property
    def answer(self) -> Answer:
        """The answer."""
        return Answer(
            self.kind,
            self.text,
            self.finish,
            self.prompt_tokens,
            self.completion_tokens,
            self.left_out,
            self.limit,
        )


class AnswerLedger:
    """The answers in the folder of a run, and what they cost; see `demur.endpoint.Ledger`.

    The budget counts an answer when the run uses it for the first time, whether it was asked for
    now or before an interruption: a run that goes on takes the same decisions as one that was never
    interrupted. Requests that do not fit are refused before they are made. What a request will cost
    is known only afterwards, so the most that it can cost is reckoned with: each byte of its text
    as a token, and as many tokens of an answer as it allows.

    Args:
        folder: folder of the run.
        budget: the most that may be asked.

    Attributes:
        budget: the most that may be asked.
        reserve: what is kept for later and must stay unspent for now.
        spent: what was asked so far.
        on_answer: called after each answer that counts.

    Raises:
        DemurError: the files are damaged or cannot be written.
    """

    def __init__(self, folder: Path, budget: Spent) -> None:
        self.budget = budget
        self.reserve = Spent()
        self.spent = Spent()
        self.on_answer: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._used: set[str] = set()
        self._dearest: dict[tuple[str, str, str], int] = {}
        self._kept = KeptRecords(folder / FOLDER, "answers", KeptAnswer)
        self._answers = {one.key: one.answer for one in self._kept.found}

    @property
    def has_answers(self) -> bool:
        """Whether any answer is kept."""
        return bool(self._answers)

    def recall(self, asked: Sequence[Asked]) -> list[Answer | None]:
        """The answers that are kept; None for each request that is to be made.

        Raises:
            BudgetSpent: the requests that count for the first time do not fit into the budget.
        """
        with self._lock:
            keys = [key_of(one) for one in asked]
            new = {key: one for key, one in zip(keys, asked, strict=True) if key not in self._used}
            self._require(Spent(len(new), sum(self._most_tokens(one) for one in new.values())))
            found = [self._answers.get(key) for key in keys]
            for key, one in new.items():
                if key in self._answers:
                    self._count(key, one, self._answers[key])
            return found

    def keep(self, asked: Asked, answer: Answer) -> None:
        """Store an answer that just came, and count it."""
        key = key_of(asked)
        kept = KeptAnswer(
            key,
            answer.kind,
            answer.text,
            answer.finish,
            answer.prompt_tokens,
            answer.completion_tokens,
            answer.left_out,
            answer.limit,
        )
        with self._lock:
            self._kept.append([kept])
            self._answers[key] = answer
            self._count(key, asked, answer)

    def require(self, calls: int, tokens: int = 0) -> None:
        """Check that so much may still be asked, beside what is kept for later.

        Args:
            calls: number of requests.
            tokens: number of tokens.

        Raises:
            BudgetSpent: it does not fit.
        """
        with self._lock:
            self._require(Spent(calls, tokens))

    def _require(self, wanted: Spent) -> None:
        if wanted.calls and not (self.spent + self.reserve + wanted).fits(self.budget):
            raise BudgetSpent(
                f"The budget of {self.budget.calls} calls and {self.budget.tokens} tokens does not "
                f"cover what comes next ({self.spent.calls} calls and {self.spent.tokens} tokens "
                "are spent): give more with --budget-calls or --budget-tokens and run the same "
                "command again to go on."
            )

    def _count(self, key: str, asked: Asked, answer: Answer) -> None:
        if key in self._used:
            return
        self._used.add(key)
        known = answer.prompt_tokens + answer.completion_tokens
        self.spent += Spent(1, known or self._most_tokens(asked))
        if answer.prompt_tokens:
            opening = _opening_of(asked)
            self._dearest[opening] = max(self._dearest.get(opening, 0), answer.prompt_tokens)
        self.on_answer()

    def _most_tokens(self, asked: Asked) -> int:
        """The most tokens that a request can cost."""
        options = asked.options
        written = options.max_tokens or options.max_completion_tokens or UNLIMITED_TOKENS
        texts = [one.content for one in asked.messages if one.role != "system"]
        dearest = self._dearest.get(_opening_of(asked))
        if dearest is None:
            dearest = TEMPLATE_TOKENS
            texts = [one.content for one in asked.messages]
        return written + dearest + sum(len(text.encode("utf-8", "replace")) for text in texts)


def key_of(asked: Asked) -> str:
    """Fingerprint of a request: of the endpoint, the model, the messages, tools and options."""
    return fingerprint(
        "request",
        place=asked.place,
        model=asked.model,
        messages=[[one.role, one.content] for one in asked.messages],
        tools=list(asked.tools),
        options=asdict(asked.options),
    )


def _opening_of(asked: Asked) -> tuple[str, str, str]:
    """What requests have in common whose costs are alike."""
    system = "\n".join(one.content for one in asked.messages if one.role == "system")
    return asked.place, asked.model, system
