"""What a GGUF file says of a tokenizer.

llama.cpp knows how a byte-level tokenizer cuts text into words by a name, so the cut of this one
must be among those that have one. SentencePiece's tokenizers come to transformers as merges; their
scores are read off from the order of those.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from gguf import TokenType

from demur.errors import DemurError
from demur.exports.gguf_file import padding_names
from demur.exports.opening import Opening
from demur.exports.template_check import messages_of, rendered

_GPT2 = "gpt2"
_DIGIT = "digit"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CONTRACTIONS_SPELLED = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"

_THREE_DIGITS = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_MARKS}|{_SPACES}"
_ONE_DIGIT = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}|{_MARKS}|{_SPACES}"
_TEKKEN = rf"{_CASED}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"

PRE_TOKENIZERS: Mapping[tuple[tuple[str, ...], bool], str] = {
    ((_GPT2,), False): "gpt-2",
    ((_DIGIT, _GPT2), False): "smollm",
    ((_ONE_DIGIT,), False): "qwen2",
    ((_THREE_DIGITS,), False): "dbrx",
    ((_THREE_DIGITS,), True): "llama-bpe",
    ((_TEKKEN,), True): "tekken",
}
"""llama.cpp's names by the cuts and by whether a word that is a token needs no merges."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACES_MARKED = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
_NORMALIZERS = (None, {"type": "NFC"})
_UNUSED = TokenType.UNUSED
_TRIED = "a"


class TokenizerMetadata:
    """The tokenizer of an exported model, as GGUF files say it.

    Args:
        opening: tokenizer with the safety tokens, and the templates that open with them.
        ends: ids that end an answer, beside the tokenizer's own.
        name: name of the model, for messages.

    Raises:
        DemurError: llama.cpp would cut some text into other tokens.
    """

    def __init__(self, opening: Opening, ends: list[int], name: str) -> None:
        tokenizer = opening.tokenizer
        self._opening, self._tokenizer, self._name = opening, tokenizer, name
        own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self._ends = list(dict.fromkeys([*own, *ends]))
        if not self._ends:
            raise self._error("does not say which token ends an answer")
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        self._model = state["model"]
        self._added = {token["content"]: token for token in state["added_tokens"]}
        for text, token in self._added.items():
            if token["lstrip"] or token["rstrip"] or token["single_word"]:
                raise self._error(f"takes the white space beside {text} away")
        unusual = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
        if self._model["type"] != "BPE" or any(self._model.get(key) for key in unusual):
            raise self._error(f"does not merge pairs ({self._model['type']})")
        self._pieces = bool(self._model["byte_fallback"])
        if self._pieces:
            self._check_spaces(state)
            self._pre, self._scores = "default", self._read_scores()
        else:
            self._pre, self._scores = self._find_pre_tokenizer(state), {}

    def add_to(self, writer: Any, rows: int, *, adds_first: bool = True) -> None:
        """Write the metadata.

        Args:
            writer: `GGUFWriter` to add to.
            rows: number of rows of the model's tables, which is the number of tokens listed.
            adds_first: whether an engine may put the first token before texts, as the tokenizer
                does.

        Raises:
            DemurError: there are more tokens than rows, or two of one name.
        """
        texts = {place: text for text, place in self._tokenizer.get_vocab().items()}
        names = padding_names(0, rows)
        tokens = [texts.get(place, names[place]) for place in range(rows)]
        if max(texts) >= rows or len(set(tokens)) < rows:
            raise self._error("does not fit the rows of the embeddings")
        kinds = (
            self._kind(text) if place in texts else _UNUSED for place, text in enumerate(tokens)
        )
        writer.add_tokenizer_model("llama" if self._pieces else "gpt2")
        writer.add_tokenizer_pre(self._pre)
        writer.add_token_list(tokens)
        writer.add_token_types(list(kinds))
        if self._pieces:
            least = -float(len(self._merges))  # of what nothing is merged into
            writer.add_token_scores([self._scores.get(text, least) for text in tokens])
            writer.add_add_space_prefix(False)
        else:
            writer.add_token_merges([" ".join(pair) for pair in self._merges])
        self._add_special(writer, adds_first)
        writer.add_chat_template(self._opening.named_templates)

    def _add_special(self, writer: Any, may_add: bool) -> None:
        tokenizer = self._tokenizer
        for kind in ("bos", "unk", "pad"):
            place = getattr(tokenizer, f"{kind}_token_id")
            if place is not None:
                getattr(writer, f"add_{kind}_token_id")(place)
        # The end of a text, of a turn, of a message: an answer ends at any of them.
        adds = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
        for add, place in zip(adds, self._ends, strict=False):
            add(place)
        # Where a conversation does not open with the first token, llama.cpp must not add it. Where
        # it does, llama.cpp sees that and adds no second one.
        adds_first = tokenizer(_TRIED)["input_ids"][:1] == [tokenizer.bos_token_id]
        opens = may_add and adds_first and self._conversation.startswith(tokenizer.bos_token)
        writer.add_add_bos_token(opens)
        writer.add_add_eos_token(False)

    def _kind(self, text: str) -> TokenType:
        if self._pieces and text == self._tokenizer.unk_token:
            return TokenType.UNKNOWN
        if text in self._added:
            special = self._added[text]["special"]
            return TokenType.CONTROL if special else TokenType.USER_DEFINED
        if self._pieces and _BYTE.fullmatch(text):
            return TokenType.BYTE
        return TokenType.NORMAL

    @cached_property
    def _conversation(self) -> str:
        template = self._tokenizer.chat_template
        (found,) = rendered(self._tokenizer, [(messages_of([("user", _TRIED)]), {})], template)
        return "" if found is None else found.text

    @cached_property
    def _merges(self) -> list[tuple[str, str]]:
        """The pairs; older files write one as a text with a space in its middle."""
        merges = self._model["merges"]
        pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in merges)
        return [(left, right) for left, right in pairs]

    def _find_pre_tokenizer(self, state: Mapping[str, Any]) -> str:
        """llama.cpp's name for how the tokenizer cuts text into words.

        Raises:
            DemurError: it has none.
        """
        normalizer, pre = state["normalizer"], state["pre_tokenizer"] or {"type": "nothing"}
        cuts: list[str] = []
        steps = pre["pretokenizers"] if pre["type"] == "Sequence" else [pre]
        for step in steps:
            if step["type"] == "Digits" and step["individual_digits"]:
                cuts.append(_DIGIT)
            elif step["type"] == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
                cut = step["pattern"].get("Regex", "")
                cuts.append(cut.replace(_CONTRACTIONS_SPELLED, _CONTRACTIONS))
            elif step["type"] == "ByteLevel" and not step["add_prefix_space"]:
                cuts += [_GPT2] if step["use_regex"] else []
            else:
                cuts.append(step["type"])
        name = PRE_TOKENIZERS.get((tuple(cuts), bool(self._model.get("ignore_merges"))))
        # NFC, which llama.cpp leaves out, is what nearly all text is in.
        if name is None or steps[-1]["type"] != "ByteLevel" or normalizer not in _NORMALIZERS:
            raise self._error("cuts text into words in a way for which llama.cpp has no name")
        return name

    def _check_spaces(self, state: Mapping[str, Any]) -> None:
        """Make sure that no space is put in front of a conversation's texts.

        Raises:
            DemurError: one is, or the tokenizer treats spaces in an unknown way.
        """
        normalizer, pre = state["normalizer"], state["pre_tokenizer"]
        scheme = None
        if normalizer == _SPACES_MARKED and (pre is None or pre["type"] == "Split"):
            scheme = "never"  # a split at spaces finds none after the marking
        elif normalizer is None and pre and pre["type"] == "Metaspace" and not pre["split"]:
            scheme = pre["prepend_scheme"]
        opens = any(self._conversation.startswith(text) for text in self._added)
        if scheme != "never" and not (scheme == "first" and opens):
            raise self._error("treats spaces in a way that llama.cpp does not know")

    def _read_scores(self) -> dict[str, float]:
        """The scores of pieces: llama.cpp merges the neighbours that make the best piece.

        Raises:
            DemurError: the merges follow no scores.
        """
        places: dict[str, int] = {}
        last = None
        for place, (left, right) in enumerate(self._merges):
            piece = left + right
            if piece != last and piece in places:
                raise self._error("merges pairs in another order than that of scores")
            places.setdefault(piece, place)
            last = piece
        vocab, known = self._model["vocab"], set(self._merges)
        for piece in vocab:
            pairs = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
            if piece not in self._added and any(
                left in vocab and right in vocab and (left, right) not in known
                for left, right in pairs
            ):
                raise self._error("does not merge all pairs that make a piece")
        return {piece: -float(place) for piece, place in places.items()}

    def _error(self, reason: str) -> DemurError:
        return DemurError(
            f"{self._name} cannot become a GGUF file here, for its tokenizer {reason}: export to "
            "transformers and convert that folder with llama.cpp's convert_hf_to_gguf.py."
        )
