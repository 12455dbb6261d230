"""From the pieces of a rendered conversation to token ids, exactly.

A conversation is tokenized as one text, the way models were trained, with two exceptions. First,
the safety prompt's tokens are its own: where a token would lie over one of its edges, the text is
cut there. Second, only the template may write added tokens (special ones, and any other that the
tokenizer was given): where the text of a user or an application would become one, it is cut inside.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from demur.errors import DemurError

SegmentKind = Literal["markup", "safety_prompt", "system_prompt", "query", "response"]

# Put before a text that goes on where another stopped, so that the tokenizer does not take its
# start for the start of a text; its tokens are dropped. Of several kinds, as each kind may merge
# with some text: a rare symbol, a line break, a letter, a digit.
_ANCHORS = ("\u2e3b", "\n", "x", "1")


@dataclass(frozen=True)
class Segment:
    """A stretch of a conversation: `markup` is the template's, every other kind is plain text."""

    text: str
    kind: SegmentKind = "markup"


class _Token(NamedTuple):
    id: int
    start: int  # first character, counted in the whole conversation
    end: int  # one past the last character


_Encode = Callable[[str], list[_Token]]


class SegmentTokenizer:
    """Tokenizes conversations that are given as segments.

    Args:
        tokenizer: must have a fast version (offsets are needed). Tokens that are added to it
            afterwards are not known here.

    Raises:
        DemurError: the tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise DemurError(
                f"{type(tokenizer).__name__} tells no token offsets: use a model that comes with a"
                " tokenizer.json file."
            )
        self._tokenizer = _with_exact_offsets(tokenizer)
        self._bare: _Encode | None = None
        backend: Any = tokenizer.backend_tokenizer
        # Runs of white space are sometimes listed as added tokens too (Gemma's line breaks): they
        # are ordinary text and control nothing.
        self._reserved = {
            token_id: token
            for token_id, token in backend.get_added_tokens_decoder().items()
            if token.special or not token.content.replace("\u2581", " ").isspace()
        }
        self._unknown_id = tokenizer.unk_token_id
        first = tokenizer.convert_ids_to_tokens([t.id for t in self._encode("x")][:1])
        self._marks_text_start = bool(first) and str(first[0]).startswith(("\u2581", "\u0120"))
        self.placeholder_id = self._ordinary_id()

    def __call__(self, segments: Sequence[Segment]) -> tuple[list[int], tuple[int, int] | None]:
        """Token ids of a conversation, and the span [start, end) of its safety prompt's tokens.

        Args:
            segments: at most one of kind `safety_prompt`.

        Raises:
            DemurError: a text cannot be tokenized without becoming an added token.
        """
        text = "".join(segment.text for segment in segments)
        plain: list[tuple[int, int]] = []
        prompt: tuple[int, int] | None = None
        position = 0
        for segment in segments:
            stretch = (position, position := position + len(segment.text))
            if segment.kind != "markup" and segment.text:
                plain.append(stretch)
            if segment.kind == "safety_prompt":
                prompt = stretch
        pieces = _Pieces(text)
        while True:
            tokens = self._tokenize(pieces)
            cuts = {e for e in prompt or () for t in tokens if t.start < e < t.end}
            for token in tokens:
                if token.id in self._reserved:
                    cuts |= self._cuts_inside(token, text, plain, pieces)
            if not cuts:
                break
            pieces.cuts |= cuts
        ids = [token.id for token in tokens]
        if prompt is None:
            return ids, None
        inside = [i for i, t in enumerate(tokens) if prompt[0] <= t.start < prompt[1]]
        if not inside:
            raise DemurError("The safety prompt has no tokens under this tokenizer: give another.")
        return ids, (inside[0], inside[-1] + 1)

    def added_token_in(self, text: str) -> str | None:
        """The first added token that a text would become, were it the template's; None for none."""
        token = next(iter(self.control_tokens(text)), None)
        return None if token is None else text[token.start : token.end]

    def control_tokens(self, markup: str) -> list[_Token]:
        """The added tokens in a template's markup, with their places in it."""
        return [
            token
            for token in self._encode(markup)
            if token.id in self._reserved and token.id != self._unknown_id
        ]

    def _tokenize(self, pieces: _Pieces) -> list[_Token]:
        tokens: list[_Token] = []
        bounds = sorted({0, len(pieces.text)} | pieces.cuts)
        for start, end in pairwise(bounds):
            if (start, end) not in pieces.done:
                encode = self._encode_bare if (start, end) in pieces.bare else self._encode
                pieces.done[start, end] = [
                    _Token(t.id, t.start + start, t.end + start)
                    for t in self._encode_piece(pieces.text[start:end], start > 0, encode)
                ]
            tokens += pieces.done[start, end]
        return tokens

    def _cuts_inside(
        self, token: _Token, text: str, plain: Iterable[tuple[int, int]], pieces: _Pieces
    ) -> set[int]:
        """Where to cut so that plain text no longer becomes this added token."""
        touched = [(s, e) for s, e in plain if token.start < e and s < token.end]
        if not touched:
            return set()  # the template's own
        content = self._reserved[token.id].content
        if token.id == self._unknown_id and (
            text[token.start : token.end].strip().casefold() != content.casefold()
        ):
            return set()  # a word that the vocabulary lacks, not one that names the unknown token
        borders = {b for stretch in touched for b in stretch if token.start < b < token.end}
        if borders:
            return borders
        if token.end - token.start > 1:
            return {(token.start + token.end) // 2}
        character = (token.start, token.end)
        if character in pieces.bare:
            if not self._reserved[token.id].special:
                return set()  # a letter of the model's own vocabulary, listed once more
            raise DemurError(
                f"The text {text[slice(*character)]!r} can only be read as the token {content!r}:"
                " leave it out."
            )
        pieces.bare.add(character)
        pieces.done.pop(character, None)
        return set(character)

    def _encode_piece(self, text: str, continues: bool, encode: _Encode) -> list[_Token]:
        """Tokens of a piece with offsets in it; `continues`: another piece stands before it."""
        if not (continues and self._marks_text_start):
            return encode(text)
        for anchor in _ANCHORS:
            n = len(anchor)
            tokens = encode(anchor + text)
            if not any(t.start < n < t.end for t in tokens):
                return [_Token(t.id, t.start - n, t.end - n) for t in tokens if t.start >= n]
        raise DemurError(f"The tokenizer cannot tokenize {text[:40]!r} inside a text: reword it.")

    def _encode(self, text: str) -> list[_Token]:
        encoding = self._tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=False,
            return_attention_mask=False,
            verbose=False,
        ).encodings[0]
        return _tokens(encoding)

    def _encode_bare(self, text: str) -> list[_Token]:
        """Encode with a copy of the tokenizer that has no added tokens at all."""
        if self._bare is None:  # seconds for a large vocabulary, and hardly ever needed
            from tokenizers import Tokenizer

            state = json.loads(self._tokenizer.backend_tokenizer.to_str())
            state |= {"added_tokens": [], "post_processor": None, "truncation": None}
            bare = Tokenizer.from_str(json.dumps(state | {"padding": None}))
            self._bare = lambda text: _tokens(bare.encode(text, add_special_tokens=False))
        return self._bare(text)

    def _ordinary_id(self) -> int:
        """The id of some token that is ordinary text."""
        ids = [token.id for token in self._encode("x") if token.id not in self._reserved]
        return ids[-1] if ids else next(i for i in range(2**31) if i not in self._reserved)


class _Pieces:
    """A text, where it is cut so far, and the tokens of the pieces that were encoded already."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.cuts: set[int] = set()
        self.bare: set[tuple[int, int]] = set()  # pieces to encode without any added token
        self.done: dict[tuple[int, int], list[_Token]] = {}


def _tokens(encoding: Any) -> list[_Token]:
    return [
        _Token(token_id, start, end)
        for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
    ]


def _with_exact_offsets(tokenizer: PreTrainedTokenizerBase) -> Any:
    """The tokenizer, or a copy where its post-processor trims spaces from the offsets it tells.

    With trimmed offsets a token " You" would seem not to lie over the edge before "You". The
    post-processor has no part in which tokens come out, as no special tokens are asked of it.
    """
    processor = tokenizer.backend_tokenizer.post_processor
    if processor is None or b'"trim_offsets":true' not in processor.__getstate__():
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.backend_tokenizer.post_processor = None
    return tokenizer
