"""Telling a model's reasoning from its answer, by the marks that models write around reasoning.

What stands before the last mark that ends a reasoning is no part of the answer, and a response that
never left its reasoning holds no answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAMES = r"(?:seed:)?(?:think|thinking|thoughts?|reasoning|reflection)"


@dataclass(frozen=True)
class ReasoningMarks:
    """What some models write around their reasoning.

    Attributes:
        begins: pattern of what begins it.
        ends: pattern of what ends it.
        closing: text that ends it in a prompt, `{begins}` standing for the name in `begins`.
        tokens: texts of tokens that the two consist of, where those may be special ones.
    """

    begins: str
    ends: str
    closing: str = ""
    tokens: tuple[str, ...] = ()


MARKS = (
    # DeepSeek, Qwen, GLM, Step, EXAONE, Seed and most others.
    ReasoningMarks(
        rf"<(?P<name>{_NAMES})>",
        rf"</{_NAMES}>",
        "\n</{name}>\n\n",
        ("<think>", "</think>", "<thought>", "</thought>", "<seed:think>", "</seed:think>"),
    ),
    # Magistral and Ministral; Kimi-VL; Cohere; Sky-T1.
    ReasoningMarks(r"\[(?P<name>THINK)\]", r"\[/THINK\]", "[/{name}]", ("[THINK]", "[/THINK]")),
    ReasoningMarks("◁think▷", "◁/think▷", "◁/think▷", ("◁think▷", "◁/think▷")),
    ReasoningMarks(
        r"<\|START_THINKING\|>",
        r"<\|END_THINKING\|>",
        "<|END_THINKING|>",
        ("<|START_THINKING|>", "<|END_THINKING|>"),
    ),
    ReasoningMarks(
        r"<\|begin_of_thought\|>",
        r"<\|end_of_thought\|>",
        "<|end_of_thought|>\n\n",
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ),
    # gpt-oss; Gemma 4; MedGemma.
    ReasoningMarks(
        r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)(?:<\|message\|>)?",
        r"<\|channel\|>final(?:(?!<\|channel\|>).){0,80}<\|message\|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        ("<|channel|>", "<|message|>", "<|start|>"),
    ),
    ReasoningMarks(
        r"<\|channel>thought", r"<channel\|>", "\n<channel|>", ("<|channel>", "<channel|>")
    ),
    ReasoningMarks(
        r"<unused94>thought", r"<unused95>", "\n<unused95>", ("<unused94>", "<unused95>")
    ),
    # Apriel.
    ReasoningMarks(
        r"Here are my reasoning steps:", r"\[BEGIN FINAL RESPONSE\]", "\n[BEGIN FINAL RESPONSE]\n"
    ),
)
"""Marks that are no ordinary text, so that what ends a reasoning counts wherever it stands."""

TEXT_MARKS = (
    # gpt-oss where its tokens were left out; Granite.
    ReasoningMarks(r"analysis(?=[A-Z\"'])", r"assistant\s?final"),
    ReasoningMarks(
        r"Here(?:'s| is) my thought process:",
        r"Here(?:'s| is) my response:",
        "\nHere is my response:",
    ),
)
"""Marks that count only in a response that begins with them, because they are ordinary text."""

MARK_TOKENS = frozenset(token for marks in MARKS for token in marks.tokens)
"""Texts of the tokens that a response keeps although they may be special ones."""

_BEGINS = [re.compile(marks.begins, re.IGNORECASE) for marks in MARKS]
_REOPENS = re.compile(
    "|".join(rf"^[ \t]*{each.pattern.replace('?P<name>', '?:')}" for each in _BEGINS),
    re.IGNORECASE | re.MULTILINE,
)
_ENDS = re.compile("|".join(marks.ends for marks in MARKS), re.IGNORECASE | re.DOTALL)
_TEXTS = [(re.compile(marks.begins), re.compile(marks.ends)) for marks in TEXT_MARKS]
# Most responses have and begin with none of these, and are not searched any further.
_HINTS = ("<", "[", "◁")
_FIRST_WORDS = ("analysis", "Here")


@dataclass(frozen=True)
class Stretch:
    """The part of a response that is its answer.

    Attributes:
        start: index of its first character.
        end: one past the last character; the answer is over where a reasoning begins again.
    """

    start: int
    end: int


def answer_stretch(response: str) -> Stretch | None:
    """Where the answer stands in a response; None where the response never left its reasoning.

    Args:
        response: text of a response. One without any mark of reasoning is an answer as a whole.
    """
    whole = Stretch(0, len(response))
    if not _may_reason(response):
        return whole
    start = max((found.end() for found in _ENDS.finditer(response)), default=0)
    for begins, ends in _TEXTS:
        if begins.match(response, len(response) - len(response.lstrip())):
            start = max([start, *(found.end() for found in ends.finditer(response))])
            if start == 0:
                return None
    again = _REOPENS.search(response, start)
    end = len(response) if again is None else again.start()
    if (start, end) == (0, len(response)):
        return whole
    return Stretch(start, end) if response[start:end].strip() else None


def answer_in(response: str) -> str | None:
    r"""The part of a response that is its answer; None where it never left its reasoning.

    Example:
        >>> answer_in("<think>Is that safe? It is.</think>\n\nPreheat the oven.")
        'Preheat the oven.'
        >>> answer_in("<think>Is that safe?") is None
        True
    """
    if not _may_reason(response):
        return response
    found = answer_stretch(response)
    if found is None:
        return None
    if (found.start, found.end) == (0, len(response)):
        return response
    return response[found.start : found.end].strip()


def _may_reason(response: str) -> bool:
    """Whether a response has a character that marks have, or begins like one that has a text."""
    for hint in _HINTS:
        if hint in response:
            return True
    return response.lstrip().startswith(_FIRST_WORDS)


def closing_of(header: str, *, anywhere: bool = False) -> str:
    """What ends the reasoning that a text leaves open; empty where it leaves none open.

    Args:
        header: text that a chat template writes before an answer.
        anywhere: whether words of the reasoning may stand behind the mark that begins it.
    """
    text = header.rstrip()
    for marks in (*MARKS, *TEXT_MARKS):
        begins = [*re.finditer(marks.begins, text, re.IGNORECASE)]
        if not begins or not marks.closing:
            continue
        behind = text[begins[-1].end() :]
        if (behind and not anywhere) or ends_reasoning(behind):
            continue
        name = begins[-1].groupdict().get("name")
        if name is not None:
            return marks.closing.replace("{name}", name)
        return marks.closing.removeprefix("\n") if header.endswith("\n") else marks.closing
    return ""


def ends_reasoning(text: str) -> bool:
    """Whether a text has a mark that ends a reasoning."""
    return _ENDS.search(text) is not None


def mentions_reasoning(template: str) -> bool:
    """Whether a chat template has a mark that begins or ends a reasoning."""
    return ends_reasoning(template) or any(mark.search(template) for mark in _BEGINS)
