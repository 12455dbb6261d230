"""Talking: turns, streaming, and switching the safety prompt on the way."""

from __future__ import annotations

import io
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from demur import ChatModel, Condition, DemurError, Dialogue, SafetyPrompt
from demur.chat.engine import SamplingSettings
from demur.cli.app import build_app
from demur.cli.talk import Talk
from demur.prompts import Provenance
from demur.records import ModelRecord
from tests.command_line import demur
from tests.tiny import save_tiny_model

SHORT = SamplingSettings(most_tokens=12, least_tokens=4)
ARCHITECTURES = [
    "llama, grouped attention",
    "gemma3, sliding window",
    "gpt2, absolute positions",
    "mamba, state-space",
]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("model"), request.param)
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("model"))
    return ChatModel.load(folder, dtype="float32")


def trained(model: ChatModel) -> SafetyPrompt:
    rows = torch.randn(3, model.width, generator=torch.Generator().manual_seed(5))
    return SafetyPrompt("mine", None, rows)


def test_a_first_answer_is_what_a_measurement_samples(model: ChatModel) -> None:
    for prompt in (None, SafetyPrompt("text", "w5 w6"), trained(model)):
        condition = Condition(prompt)
        streamed = "".join(Dialogue(model, condition, SHORT).ask("w10 w11"))
        ((sample,),) = model.read_and_sample(["w10 w11"], condition, SHORT).samples
        assert streamed == sample.text


def test_later_turns_are_read_behind_earlier_ones(model: ChatModel) -> None:
    condition = Condition(trained(model), "w7")
    dialogue = Dialogue(model, condition, SHORT)
    for query in ("w10 w11", "w12", "w13 w14"):
        answer = "".join(dialogue.ask(query))
        # A conversation that knows nothing of the earlier turns' cache says the same.
        fresh = Dialogue(model, condition, SHORT, dialogue.history[:-1])
        assert "".join(fresh.ask(query)) == answer
    assert [query for query, _ in dialogue.history] == ["w10 w11", "w12", "w13 w14"]


def test_turns_are_rendered_as_the_chat_template_does(llama: ChatModel) -> None:
    tokenizer = llama.engine.tokenizer
    messages = [
        {"role": "system", "content": "w5 w6"},
        {"role": "user", "content": "w10"},
        {"role": "assistant", "content": "w11"},
        {"role": "user", "content": "w12"},
    ]
    wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(wanted, add_special_tokens=False)["input_ids"]
    found = llama.renderer.render("w12", "w5 w6", history=[("w10", "w11")])
    assert list(found.token_ids) == ids


def test_switching_the_prompt_changes_the_whole_conversation(llama: ChatModel) -> None:
    dialogue = Dialogue(llama, Condition(trained(llama)), SHORT)
    "".join(dialogue.ask("w10"))
    dialogue.condition = Condition()
    answer = "".join(dialogue.ask("w11"))
    assert answer == "".join(Dialogue(llama, None, SHORT, dialogue.history[:1]).ask("w11"))


def test_an_answer_that_is_stopped_is_kept_as_far_as_it_came(llama: ChatModel) -> None:
    dialogue = Dialogue(llama, None, SHORT)
    pieces = dialogue.ask("w10")
    said = next(pieces) + next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert dialogue.history == [("w10", said)]


def test_a_conversation_that_grows_too_long_says_so(llama: ChatModel) -> None:
    dialogue = Dialogue(llama, None, SHORT)
    with pytest.raises(DemurError, match=r"has 3\d\d tokens, more than the 256 .*: shorten"):
        list(dialogue.ask("w10 " * 300))
    assert dialogue.history == []
    with pytest.raises(DemurError, match=r"its answer may have 300, .*: ask for at most \d+"):
        list(Dialogue(llama, None, SamplingSettings(most_tokens=300)).ask("w10"))
    dialogue.history.append(("w10", "w11 " * 250))
    with pytest.raises(DemurError, match="begin a new one"):
        list(dialogue.ask("w10"))


def test_a_prompt_of_another_width_is_refused(llama: ChatModel) -> None:
    with pytest.raises(DemurError):
        Dialogue(llama, Condition(SafetyPrompt("wide", None, torch.zeros(2, 7))))


def talk(
    model: ChatModel,
    lines: str,
    monkeypatch: pytest.MonkeyPatch,
    *prompts: SafetyPrompt | None,
    width: int = 100,
) -> str:
    """What a chat shows when these lines come through a pipe."""
    out = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    chosen = prompts or (None,)
    dialogue = Dialogue(model, Condition(chosen[0]), SHORT)
    Talk(dialogue, chosen, Console(file=out, width=width)).run()
    return out.getvalue()


def test_compare_answers_under_each_prompt(
    llama: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = trained(llama)
    shown = talk(llama, "/compare w10 w11\n", monkeypatch, None, mine)
    for prompt in (None, mine):
        answer = "".join(Dialogue(llama, Condition(prompt), SHORT).ask("w10 w11"))
        assert answer.split()[0] in shown
    assert "none" in shown
    assert "mine" in shown


def test_names_stand_above_answers_in_a_narrow_terminal(
    llama: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, name = trained(llama), "qwen2.5-coder-0.5b-my-prompt.txt-quick"
    prompts = (None, SafetyPrompt("other.txt", "w5 w6"), SafetyPrompt(name, None, mine.embeddings))
    answers = [
        "".join(Dialogue(llama, Condition(one), SHORT).ask("w10 w11")).split() for one in prompts
    ]
    shown = talk(llama, "/compare w10 w11\n", monkeypatch, *prompts, width=80)
    blocks = [block.splitlines() for block in shown.strip().split("\n\n")]
    assert blocks[0] == ["w10 w11"]
    assert [block[0].rstrip() for block in blocks[1:]] == ["none", "other.txt", name]
    assert [" ".join(block[1:]).split() for block in blocks[1:]] == answers
    assert name in talk(llama, "/compare w10 w11\n", monkeypatch, *prompts, width=160)
    told = talk(llama, "/help\n", monkeypatch)
    assert all(len(line) <= 80 for line in told.splitlines())


def test_commands_switch_and_clear(llama: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "/prompt run\n/prompt\n/clear\n/prompt none\n/exit\nw10\n"
    shown = talk(llama, lines, monkeypatch, None, trained(llama))
    assert "Safety prompt: mine" in shown
    assert "* mine" in shown
    assert "Safety prompt: none" in shown
    assert shown.rstrip().endswith("for the whole conversation.")  # nothing after /exit


def test_plain_words_leave_and_ask_for_help_on_a_terminal(
    llama: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    typed = iter(["help", "exit", "never asked"])
    monkeypatch.setattr("builtins.input", lambda _prompt: next(typed))
    out = io.StringIO()
    monkeypatch.setattr("sys.stdin", Terminal())
    Talk(Dialogue(llama, Condition(), SHORT), [None], Console(file=out, width=100)).run()
    assert "/compare QUESTION" in out.getvalue()
    assert next(typed) == "never asked"
    # Through a pipe they are questions like any other.
    assert talk(llama, "exit\n", monkeypatch).strip()


def test_a_run_that_was_trained_behind_another_text_says_so(
    llama: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "It was trained behind another system text than this conversation has."
    assert said not in talk(llama, "/prompt short\n", monkeypatch)
    monkeypatch.setattr("demur.cli.talk.trained_behind", lambda _name: "You are Saffron.")
    assert said in talk(llama, "/prompt short\n", monkeypatch)


def test_prompts_of_one_name_are_told_apart(
    llama: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [SafetyPrompt("mine", "w5"), SafetyPrompt("mine", "w6"), SafetyPrompt("none", "w7")]
    same = SafetyPrompt("another name", "w5")
    shown = talk(
        llama, "/prompt\n/prompt mine (2)\n/prompt\n/compare w10\n", monkeypatch, *prompts, same
    )
    lines = [line.strip() for line in shown.splitlines()]
    assert lines[:3] == ["* mine", "mine (2)", "none (2)"]
    assert lines[4:7] == ["mine", "* mine (2)", "none (2)"]
    above = [after for line, after in pairwise(lines[7:]) if not line]
    assert above == ["none", "mine", "mine (2)", "none (2)"]
    shown = talk(llama, "/prompt none\nw10 w11\n", monkeypatch, *prompts)
    bare = "".join(Dialogue(llama, Condition(), SHORT).ask("w10 w11"))
    assert bare.split()[0] in shown.splitlines()[1]
    assert "Safety prompt: none, for" in shown


def test_mistakes_do_not_end_a_chat(
    llama: ChatModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "/nonsense\n/prompt run\n/compare\n/prompt no/such/file.txt\n/prompt\n"
    shown = talk(llama, lines, monkeypatch)
    said = capsys.readouterr().err
    assert "There is no command /nonsense" in said
    assert "There is no run to switch to" in said
    assert "nothing to compare" in said
    assert "* none" in shown


def test_what_the_model_says_cannot_drive_the_terminal(
    llama: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(self: Dialogue, query: str):  # type: ignore[no-untyped-def]
        yield "a\x1b[2J[red]b\u202e"

    monkeypatch.setattr(Dialogue, "ask", ask)
    for lines in ("w10\n", "/compare w10\n"):
        shown = talk(llama, lines, monkeypatch)
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert "[red]b" in shown


def test_the_command_answers_what_comes_through_a_pipe(saved: Path) -> None:
    options = ["--tokens", "5", "--temperature", "0", "--dtype", "float32"]
    found = CliRunner().invoke(build_app(), ["chat", str(saved), *options], input="w10 w11\n")
    assert found.exit_code == 0, found.output
    settings = SamplingSettings(most_tokens=5, temperature=0.0)
    model = ChatModel.load(saved, dtype="float32")
    assert "".join(Dialogue(model, None, settings).ask("w10 w11")) in found.stdout


def test_a_line_of_a_pipe_that_is_not_answered_is_in_the_status(saved: Path) -> None:
    options = ["--tokens", "5", "--temperature", "0", "--dtype", "float32"]
    lines = "w10\n/nonsense\nw11\n"
    found = CliRunner().invoke(build_app(), ["chat", str(saved), *options], input=lines)
    assert found.exit_code == 2
    assert sum(map(bool, found.stdout.splitlines())) == 2
    assert "There is no command /nonsense" in found.stderr


def test_a_line_without_an_end_is_not_read_whole(saved: Path) -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            self.taken += len(buffer)
            assert self.taken < 1 << 24
            buffer[:] = b"w" * len(buffer)
            return len(buffer)

    given = io.TextIOWrapper(io.BufferedReader(Endless()), encoding="utf-8")
    with patch.object(sys, "stdin", given):
        ended = demur("chat", saved, "--tokens", "5", "--dtype", "float32")
    assert ended.status == 2
    assert "error: A line of the input has more than 1000000 characters: give" in ended.err


@pytest.mark.parametrize("name", ["../../models/x", "/etc", "my-model", "a/b/c"])
def test_a_model_that_a_prompt_names_is_never_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The prompt may be a stranger's: what it names is in the catalog or on the hub."""
    record = ModelRecord(name, "folder:1", "float32", "cpu", None, "template", True)
    SafetyPrompt("mine", None, torch.ones(2, 4), Provenance(model=record)).save(tmp_path / "mine")
    loaded: list[object] = []
    monkeypatch.setattr(ChatModel, "load", lambda *args, **_: loaded.append(args))
    result = CliRunner().invoke(build_app(), ["chat", "--prompt", str(tmp_path / "mine")])
    assert isinstance(result.exception, DemurError)
    assert "give that model's folder or file" in str(result.exception)
    assert not loaded
