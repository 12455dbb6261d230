"""What ends an answer: the files of a model, and what its chat template writes behind one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from demur import ChatModel
from demur.chat import Condition, Dialogue
from demur.chat.engine import SamplingSettings
from demur.chat.engine.turn_end import TurnEnd
from demur.chat.rendering import ChatRenderer
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_checkpoints import WORDS, save_llama_gguf
from tests.tiny_tokenizers import CHATML, fast, make

pytestmark = pytest.mark.usefixtures("own_cache")

LLAMA = "llama, grouped attention"
SAMPLING = SamplingSettings(most_tokens=12, temperature=0)
ROLES = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + 'AFTER' }}{% endfor %}"


def ends_of(template: str) -> tuple[set[str], tuple[str, ...]]:
    tokenizer = make("gpt4", template)
    end = ChatRenderer(tokenizer).turn_end
    return set(tokenizer.convert_ids_to_tokens(sorted(end.tokens))), end.texts


def test_control_tokens_behind_an_answer_end_it() -> None:
    assert ends_of(CHATML) == ({"<|im_end|>", "<|im_start|>"}, ())
    assert ends_of(ROLES.replace("AFTER", "</s>")) == ({"</s>"}, ())
    # What is an added token of this tokenizer and what is not, behind one another.
    assert ends_of(ROLES.replace("AFTER", "<|eot|></s>")) == ({"</s>"}, (r"<\|eot\|>",))


@pytest.mark.parametrize(
    ("after", "cut", "kept"),
    [
        ("<|eot|>", "Yes.<|eot|>\nNo", "a <|eo"),
        ("[/END]", "Yes. [/END] No", "[END]"),
        ("\n\n### Instruction:\n", "Yes.\n\n### Instruction:\nNo", "See ### Instruction: above"),
        ("\n\nUser: ", "Yes.\nUser: No", "User: you"),
        (" USER: ", "Yes. USER: No", "A USER may ask."),
        (" Next User: ", "Yes. Next User: No", "The next user: you."),
    ],
)
def test_plain_text_behind_an_answer_ends_it(after: str, cut: str, kept: str) -> None:
    end = ChatRenderer(make("gpt4", ROLES.replace("AFTER", after))).turn_end
    assert not end.tokens
    text = end.cut(cut)
    assert text is not None
    assert text.strip() == "Yes."
    assert end.cut(kept) is None


@pytest.mark.parametrize("after", ["", " ", "\n", ".", " user : "])
def test_ordinary_text_ends_nothing(after: str) -> None:
    template = ROLES.replace("<|", "").replace("|>", "").replace("AFTER", after)
    end = ChatRenderer(make("gpt4", template)).turn_end
    assert end.cut(f"One{after}two{after}") is None


def chain(model: torch.nn.Module, ids: list[int]) -> None:
    """Let the model say these tokens, each behind the one before, whatever came earlier."""
    size = model.get_parameter("lm_head.weight").shape[0]
    table = torch.randn(size, 32, generator=torch.Generator().manual_seed(0))
    table /= table.norm(dim=1, keepdim=True)
    head = torch.zeros(size, 32)
    for before, after in pairwise(ids):
        head[after] += table[before]
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data[:] = 1
        elif "layers" in name:
            parameter.data.zero_()
    model.get_parameter("model.embed_tokens.weight").data[:] = table
    model.get_parameter("lm_head.weight").data[:] = head * 10


def running_on(
    folder: Path,
    said: list[str],
    template: str,
    special: tuple[str, ...] = (),
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> ChatModel:
    """A model that says `said` behind the word `:`, and whose files name no end but </s>."""
    tokenizer = tokenizer or tiny_tokenizer()
    tokenizer.add_tokens([AddedToken(each, special=True) for each in special], special_tokens=True)
    tokenizer.chat_template = template
    model = tiny_model(LLAMA)
    model.resize_token_embeddings(len(tokenizer))
    vocabulary = tokenizer.get_vocab()
    chain(model, [vocabulary[word] for word in (":", *said)])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ChatModel.load(folder, dtype="float32", prefix_sharing="auto")


WORDY = "{% for m in messages %} {{ m.role }} : {{ m.content }} AFTER {% endfor %} assistant :"


def test_an_answer_does_not_run_on_into_an_invented_turn(tmp_path: Path) -> None:
    said = ["w20", "w21", "<|turn|>", "user", "w22", "w23"]
    template = WORDY.replace("AFTER", "<|turn|>")
    model = running_on(tmp_path / "tiny", said, template, ("<|turn|>",))
    sampled = model.read_and_sample(["w9 w8"], Condition(), SAMPLING).samples[0][0]
    assert (sampled.text, sampled.end) == ("w20 w21", "stop")
    assert "".join(Dialogue(model, None, SAMPLING).ask("w9 w8")) == "w20 w21"


def test_an_answer_that_opens_the_next_turn_itself_is_over(tmp_path: Path) -> None:
    said = ["w20", "w21", "<|begin|>", "user", "w22"]
    template = WORDY.replace("{{ m.role }}", "<|begin|> {{ m.role }}").replace("AFTER", "<|turn|>")
    model = running_on(tmp_path / "tiny", said, template, ("<|turn|>", "<|begin|>"))
    sampled = model.read_and_sample(["w9 w8"], Condition(), SAMPLING).samples[0][0]
    assert (sampled.text, sampled.end) == ("w20 w21", "stop")


def test_an_answer_is_cut_at_a_text_that_ends_one(tmp_path: Path) -> None:
    words = tiny_tokenizer().backend_tokenizer.to_str().replace('"w40"', '"<turn>"')
    tokenizer = fast(Tokenizer.from_str(words), None, "<unk>")
    template = WORDY.replace("AFTER", "<turn>")
    model = running_on(tmp_path / "tiny", ["w20", "w21", "<turn>", "user"], template, (), tokenizer)
    assert model.engine.turn_end.texts == ("<turn>",)
    sampled = model.read_and_sample(["w9 w8"], Condition(), SAMPLING).samples[0][0]
    assert (sampled.text.strip(), sampled.end) == ("w20 w21", "stop")
    assert "".join(Dialogue(model, None, SAMPLING).ask("w9 w8")).strip() == "w20 w21"


def test_a_beginning_of_such_a_text_is_not_shown_yet() -> None:
    end = TurnEnd(texts=(r"\n[ \t]*User:",))
    assert end.certain("Yes.\nUs") == "Yes."
    assert end.certain("Yes. No") == "Yes. No"
    assert end.certain("Yes.\n" + "and so on " * 20).endswith("on ")
    assert TurnEnd().certain("Yes.\nUs") == "Yes.\nUs"
    inline = TurnEnd(texts=(r"\sUSER:",))
    assert inline.certain("Yes. US") == "Yes."
    assert inline.certain("Yes. USER and") == "Yes. USER"


@pytest.mark.parametrize("key", ["eot_token_id", "eom_token_id", "eos_token_id"])
def test_ends_that_a_gguf_file_names(tmp_path: Path, saved: Path, key: str) -> None:
    file = tmp_path / "tiny.gguf"
    save_llama_gguf(file, saved, {f"tokenizer.ggml.{key}": WORDS.index("w3")})
    model = ChatModel.load(file, dtype="float32")
    assert WORDS.index("w3") in model.engine.turn_end.tokens
    # Once more from the copy that was unpacked.
    model = ChatModel.load(file, dtype="float32")
    assert WORDS.index("w3") in model.engine.turn_end.tokens
