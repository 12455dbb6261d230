"""How a prompt changes the length and the language of answers to harmless queries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import fmean

from demur.errors import DemurError
from demur.evaluation.costs import AnswerLength
from demur.evaluation.statistics import mean_interval, rate_over_queries
from demur.judges.languages import ENGLISH, is_english, language_of
from demur.judges.phrases import read_words
from demur.records import JudgedResponse, Query, Rate, identity_of, text_of

_STOPPED = "stop"
_TELLING = 8
"""Number of letters in a word or two, below which a text says nothing about its language."""


@dataclass
class Answers:
    """What is counted of the answers to one query under one condition.

    Attributes:
        tokens: number of tokens of each answer.
        cut: number of answers that did not end by themselves.
        other_language: for each answer whose language can be told, whether it is another one.
    """

    tokens: list[int] = field(default_factory=list)
    cut: int = 0
    other_language: list[bool] = field(default_factory=list)


AnswersByQuery = dict[str, Answers]
"""The answers to each query, by the query's identity."""


def counted_answers(
    responses: Iterable[JudgedResponse], ids: Callable[[str], tuple[int, ...]]
) -> AnswersByQuery:
    """Count the answers to harmless queries; what refuses or deflects is none.

    Args:
        responses: responses under one condition.
        ids: the tokens of an answer.
    """
    found: AnswersByQuery = {}
    for response in responses:
        answer = response.answer
        if response.label != "harmless" or response.query is None or not response.is_answer:
            continue
        if response.answered is False or not answer.strip():
            continue
        try:
            tokens = len(ids(answer))
        except DemurError:  # an answer that only tokens can write
            continue
        counts = found.setdefault(identity_of(response.query), Answers())
        counts.tokens.append(tokens)
        counts.cut += response.end != _STOPPED
        other = is_other_language(response.query, answer)
        counts.other_language += [] if other is None else [other]
    return found


def length_of(answers: AnswersByQuery, unprompted: AnswersByQuery | None) -> AnswerLength | None:
    """The length of answers, and how it differs from those without a prompt.

    Args:
        answers: answers under one condition.
        unprompted: answers without a safety prompt; None where they were not measured.

    Returns:
        None where nothing was answered.
    """
    if not answers:
        return None
    means = {query: fmean(counts.tokens) for query, counts in answers.items()}
    changes = [
        mean - fmean(unprompted[query].tokens)
        for query, mean in means.items()
        if unprompted is not None and query in unprompted
    ]
    return AnswerLength(
        queries=len(means),
        tokens=fmean(means.values()),
        answers=sum(len(counts.tokens) for counts in answers.values()),
        cut=sum(counts.cut for counts in answers.values()),
        change=fmean(changes) if changes else None,
        interval=mean_interval(changes, least=-math.inf),
    )


def other_language_of(answers: AnswersByQuery) -> Rate | None:
    """The rate of answers in another language than their query; None where none can be told."""
    told = [counts.other_language for counts in answers.values() if counts.other_language]
    return rate_over_queries([fmean(each) for each in told]) if told else None


def is_other_language(query: Query, answer: str) -> bool | None:
    """Whether an answer is in another language than its query.

    Args:
        query: the query; of a conversation its last message.
        answer: text of the answer.

    Returns:
        None where that cannot be told: a text is too short, or none of the languages that are
        known.
    """
    asked = text_of(query)
    if min(sum(map(str.isalpha, asked)), sum(map(str.isalpha, answer))) < _TELLING:
        return None
    here, there = language_of(asked), language_of(answer)
    if here is None:
        return None
    # What speaks for no other language is taken for English, for example a list of names.
    if there == ENGLISH and here != ENGLISH and not is_english(read_words(answer)):
        return None
    return here != there
