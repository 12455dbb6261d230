"""How a chat template begins and ends an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from demur.chat.engine.turn_end import TurnEnd
from demur.chat.tokenization import Segment, SegmentTokenizer
from demur.records.reasoning import MARK_TOKENS, closing_of, ends_reasoning

_TAG = re.compile(r"<[^<>\s]{1,60}>|\[[^\[\]\s]{1,60}\]")
_LABEL = re.compile(r"[A-Z]\w+( \w+)?:")


@dataclass(frozen=True)
class AnsweredTurn:
    """The markup around an answer that was given earlier in the conversation.

    Attributes:
        before: markup between the query and the answer.
        after: markup between the answer and what follows it.
    """

    before: str
    after: str

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> AnsweredTurn | None:
        """The markup around the first answer in a layout; None where there is none."""
        kinds = [segment.kind for segment in segments]
        if "response" not in kinds:
            return None
        place = kinds.index("response")
        before = segments[place - 1].text if place and kinds[place - 1] == "markup" else ""
        after = segments[place + 1].text if kinds[place + 1 : place + 2] == ["markup"] else ""
        return cls(before, after)


def ending_of(header: str, answered: AnsweredTurn | None) -> str:
    """What has to be added to the header of an answer, so that the answer itself begins there.

    A template may leave a reasoning open at the end of the header, or leave out what it writes
    before earlier answers: gpt-oss names the channel of an answer only in these.

    Args:
        header: what the template writes between the query and the answer to come.
        answered: the markup around an earlier answer, or None where the template takes none.
    """
    closing = closing_of(header)
    if closing or answered is None:
        return closing
    if answered.before.startswith(header):
        # White space goes with the first token of the answer.
        more = answered.before.removeprefix(header).rstrip(" ")
        return more if ends_reasoning(more) or _TAG.search(more) else ""
    words = _words_of(header, answered)
    return closing_of(words, anywhere=True)


def opens_answer(ending: str) -> bool:
    """Whether what `ending_of` gave leads into the answer itself, past any reasoning.

    It is a mark that ends a reasoning, or the mark of a channel for answers.
    """
    return ends_reasoning(ending) or _TAG.fullmatch(ending.strip()) is not None


def begins_answer(header: str, answered: AnsweredTurn | None) -> bool:
    """Whether a template puts words or a mark before the answer to come that earlier answers lack.

    They may begin a reasoning of which the marks are not known.
    """
    if answered is None or not answered.before.strip() or ends_reasoning(header):
        return False
    if any(map(str.isalnum, _words_of(header, answered))):
        return True
    return not set(_TAG.findall(header)) <= set(_TAG.findall(answered.before))


def _words_of(header: str, answered: AnsweredTurn) -> str:
    """What stands in a header behind all that stands before an earlier answer."""
    if not answered.before.strip() or not header.startswith(answered.before):
        return ""
    return header.removeprefix(answered.before)


def turn_end_of(tokenize: SegmentTokenizer, layouts: Iterable[AnsweredTurn | None]) -> TurnEnd:
    """What the template writes behind an answer, where a model cannot mean anything else by it.

    These are the control tokens behind the answer, up to the next query. Where there is none, it is
    the first line of the markup, if that is no ordinary text.

    Args:
        tokenize: tokenizer of the model.
        layouts: the markup around answers.
    """
    tokens: set[int] = set()
    texts: list[str] = []
    for turn in layouts:
        if turn is None or not turn.after.strip():
            continue
        control = tokenize.control_tokens(turn.after)
        first = control[0].start if control else len(turn.after)
        tokens |= {
            token.id
            for place, token in enumerate(control)
            if place == 0 or turn.after[token.start : token.end].strip() not in MARK_TOKENS
        }
        if pattern := _as_pattern(turn.after[:first]):
            texts.append(pattern)
    return TurnEnd(frozenset(tokens), tuple(dict.fromkeys(texts)))


def _as_pattern(markup: str) -> str | None:
    """A pattern for the first line of some markup; None where an answer may hold it as well."""
    line = markup.strip().split("\n", maxsplit=1)[0].rstrip()
    if tag := _TAG.match(line):
        return re.escape(tag[0])
    if _LABEL.fullmatch(line) and markup[0].isspace():
        return r"\s" + re.escape(line)
    starts_line = "\n" in markup[: len(markup) - len(markup.lstrip())]
    return r"\n[ \t]*" + re.escape(line) if starts_line and len(line) > 2 else None
