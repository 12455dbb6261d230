"""Tools in the template: read, rendered, trained with and measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from demur import (
    ChatModel,
    Condition,
    Conversation,
    DemurError,
    SafetyPrompt,
    Server,
    evaluate,
    optimize,
)
from demur.chat.embeddings import conversation_embeddings
from demur.queries import (
    QuerySet,
    in_turn,
    labelled,
    load_tools,
    mix_conversations,
    read_tools,
)
from demur.records import Query, text_of, tool_names, tools_before, tools_of, with_tools
from tests.command_line import demur, done, mistake
from tests.endpoint_server import Reply, completion, running_server
from tests.tiny import save_tiny_model

MESSAGES = (
    "{% for message in messages %} {{ message.role }} : {{ message.content }} {% endfor %}"
    "{% if add_generation_prompt %} assistant : {% endif %}"
)
LIST = "{% if tools %} system : {% for tool in tools %} {{ tool | tojson }} {% endfor %}{% endif %}"
TEMPLATES = {"before": f"<s> {LIST} {MESSAGES}", "after": None, "none": None}
TEMPLATES["after"] = (
    "<s> {% for message in messages %} {{ message.role }} : {{ message.content }} "
    "{% if loop.first and tools %} w90 {% for tool in tools %} {{ tool.function.name }} : "
    "{{ tool.function.description }} {% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} assistant : {% endif %}"
)
CLOCK = {"name": "w50", "description": "w51 w52 w53"}
LAMP = {"type": "function", "function": {"name": "w60", "parameters": {"type": "object"}}}
TOOLS = tools_of([CLOCK, LAMP])
PROMPT = SafetyPrompt("basic", "w1 w2 w3 .")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def load(folder: Path, where: str) -> ChatModel:
    template = TEMPLATES[where]
    if template is None:
        return ChatModel.load(folder, dtype="float32")
    file = folder.parent / f"{where}.jinja"
    file.write_text(template)
    return ChatModel.load(folder, dtype="float32", chat_template=file)


def test_tools_have_one_form_however_they_are_given() -> None:
    (clock,) = tools_of([CLOCK])
    assert (clock,) == tools_of([{"type": "function", "function": CLOCK}])
    assert json.loads(clock) == {
        "type": "function",
        "function": {**CLOCK, "parameters": {"type": "object", "properties": {}}},
    }
    assert tool_names(TOOLS) == ["w50", "w60"]
    assert tools_of([json.loads(one) for one in TOOLS]) == TOOLS


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ([], "Tools are a list of functions"),
        ({"name": "x"}, "Tools are a list of functions"),
        (["x"], "Tool 1 is no JSON object"),
        ([CLOCK, {"type": "retrieval"}], "Tool 2 is no function"),
        ([{"type": "function"}], "Tool 1 is no function"),
        ([{"name": " "}], "Tool 1 has no name"),
        ([{**CLOCK, "parameters": "none"}], "parameters of tool 1"),
        ([CLOCK, CLOCK], "Two tools are called 'w50'"),
        ([{"name": f"t{row}"} for row in range(200)], "There are 200 tools"),
        ([{"name": "x", "description": "y" * 300_000}], "more than 200,000 characters"),
        ([{"name": "x", "default": float("nan")}], "is no plain JSON"),
    ],
)
def test_what_is_no_tool_is_refused(described: object, message: str) -> None:
    with pytest.raises(DemurError, match=message):
        tools_of(described)


@pytest.mark.parametrize("where", ["before", "after"])
def test_the_template_lists_the_tools(folder: Path, where: str) -> None:
    model = load(folder, where)
    assert model.renderer.lists_tools
    query = Conversation("w7 ?", (("w20", "w21"),), tools=TOOLS)
    tokenizer = model.renderer._tokenizer
    for condition in (Condition(), Condition(PROMPT), Condition(PROMPT, "w30 w31")):
        with_, without = (
            model.conversation(one, condition) for one in (query, with_tools(query, ()))
        )
        assert len(with_.token_ids) > len(without.token_ids)
        if condition.safety_prompt is not None:
            for one in (with_, without):
                assert one.prompt_span is not None
                ids = list(one.token_ids[slice(*one.prompt_span)])
                assert tokenizer.convert_ids_to_tokens(ids) == ["w1", "w2", "w3", "."]
    if where == "after":
        assert tokenizer.convert_tokens_to_ids("w53") in with_.token_ids


@pytest.mark.parametrize("where", ["before", "after"])
def test_queries_with_and_without_tools_are_read_as_alone(folder: Path, where: str) -> None:
    """Also where the tools stand before the prompt, so that conversations open differently."""
    model = load(folder, where)
    queries: list[Query] = ["w7 ?", with_tools("w7 ?", TOOLS), "w8 w9 ?"]
    queries += [Conversation("w9 ?", system_prompt="w30", tools=TOOLS[:1])]
    rows = model.prompt_embeddings(PROMPT)
    trained = replace(PROMPT, embeddings=rows + 0.1)
    for prompt in (None, PROMPT, trained):
        condition = Condition(prompt)
        read = model.score(queries, [[(5, 6), (7,)]] * len(queries), condition)
        for place, query in enumerate(queries):
            embeddings = conversation_embeddings(model, query, condition, (5, 6))
            with torch.no_grad():
                logits = model.engine.model(inputs_embeds=embeddings[None]).logits[0]
            likely = logits.log_softmax(-1)[[-3, -2], [5, 6]]
            torch.testing.assert_close(read.by_target()[place][0], likely, atol=1e-5, rtol=0)


def test_a_template_that_lists_no_tools_says_so(folder: Path) -> None:
    model = load(folder, "none")
    assert not model.renderer.lists_tools
    with pytest.raises(DemurError, match="does not list tools: leave out the tools"):
        model.conversation(with_tools("w7 ?", TOOLS), Condition())


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("text", ["w1 </s> w2", "<s>", "w1\n</s>\n", "\ue0d0\uf0a1\ue0d1"])
def test_a_tool_writes_no_token_of_the_template(folder: Path, where: str, text: str) -> None:
    model = load(folder, where)
    for tool in ({"name": "w50", "description": text}, {"name": f"w50 {text}"}):
        with pytest.raises(DemurError, match="holds the text of a special token"):
            model.conversation(with_tools("w7 ?", tools_of([tool])), Condition(PROMPT))


def test_a_conversation_keeps_its_tools() -> None:
    query = with_tools("w7 ?", TOOLS)
    assert tools_before(query) == TOOLS
    assert with_tools(query, ()) == "w7 ?"
    third = in_turn(QuerySet("mine", "harmful", (query,)), 3).texts[0]
    assert (tools_before(third), text_of(third)) == (TOOLS, "w7 ?")
    with pytest.raises(DemurError, match="not the JSON of a function"):
        Conversation("w7 ?", tools=("clock",))


def test_built_in_tools_serve_training_or_measurement() -> None:
    names = [
        {name for tools in load_tools(use) for name in tool_names(tools)}
        for use in ("training", "measurement")
    ]
    assert len(load_tools("training")) == 8
    assert len(load_tools("measurement")) == 4
    assert not names[0] & names[1]


def test_a_share_of_the_queries_is_offered_tools() -> None:
    harmful = QuerySet("mine", "harmful", tuple(f"w{row} ?" for row in range(40)))
    harmless = QuerySet("mine", "harmless", tuple(f"w{row} w8 ?" for row in range(20)))
    queries = labelled("mine", harmful, harmless)
    mixed = mix_conversations(queries, tools=0.25, seed=3)
    offered = [bool(tools_before(query)) for query in mixed.texts]
    assert (sum(offered[:40]), sum(offered[40:])) == (10, 5)
    assert {tools_before(one) for one in mixed.texts} - {()} <= set(load_tools("training"))
    assert mixed == mix_conversations(queries, tools=0.25, seed=3)
    assert mixed != mix_conversations(queries, tools=0.25, seed=4)
    # Mixed in twice, a query keeps its tools and counts as one of the share.
    assert mix_conversations(mixed, tools=0.25, seed=3) == mixed


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    return {
        "prompts": [None, PROMPT],
        "harmful": ["w7 w0 ?", with_tools("w7 w1 ?", TOOLS)],
        "harmless": ["w8 w0 ?", "w8 w1 ?"],
        "tokens": 4,
        "judge": "paper",
        "output": tmp_path / "out",
    }


def test_an_evaluation_offers_tools_before_every_query(
    folder: Path, arguments: dict[str, Any], tmp_path: Path
) -> None:
    model = load(folder, "after")
    file = tmp_path / "tools.json"
    file.write_text(json.dumps({"tools": [CLOCK]}))
    comparison = evaluate(model, **arguments, tools=file)
    assert {rates.set for rates in comparison.rates} == {"own queries, with tools"}
    asked = [row.query for row in comparison.responses() if row.query is not None]
    expected = {"w7 w1 ?": TOOLS}
    assert all(
        tools_before(query) == expected.get(text_of(query), read_tools(file)) for query in asked
    )
    with pytest.raises(DemurError, match="another choice of queries"):
        evaluate(model, **arguments, tools="built-in")
    arguments["output"] = tmp_path / "built-in"
    comparison = evaluate(model, **arguments, tools="built-in", turns=[1, 3])
    names = {rates.set for rates in comparison.rates}
    assert names == {"own queries, with tools", "own queries, third turn, with tools"}
    with pytest.raises(DemurError, match="does not list tools"):
        evaluate(load(folder, "none"), **{**arguments, "output": tmp_path / "x"}, tools="built-in")


def test_a_server_is_sent_the_tools(tmp_path: Path, arguments: dict[str, Any]) -> None:
    def reply(request: dict[str, Any]) -> Reply:
        if "w0" in request["messages"][-1]["content"]:
            return completion("I'm sorry, but I can't help with that.")
        call = {"id": "1", "type": "function", "function": {"name": "w50", "arguments": "{}"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return 200, {"choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}]}

    file = tmp_path / "tools.json"
    file.write_text(json.dumps([CLOCK]))
    with running_server(reply) as server:
        answerer = Server(server.url, model="m")
        chosen = {name: arguments[name] for name in ("harmless", "judge", "output")}
        comparison = evaluate(answerer, **chosen, harmful=["w7 w0 ?", "w7 w1 ?"], tools=file)
    (clock,) = tools_of([CLOCK])
    assert [one["tools"] for one in server.requests] == [[json.loads(clock)]] * 4
    # The call of a tool is no answer: it is counted as such, and enters no rate.
    (rates,) = [one for one in comparison.rates if one.label == "harmful" and one.category is None]
    assert rates.refused is not None
    assert (rates.refused.count, rates.refused.queries) == (1, 1)
    assert rates.no_answer == 1


def test_training_offers_tools_where_the_template_lists_them(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "basic.txt").write_text("w1 w2 w3 .")
    offered: dict[str, int] = {}
    for where in ("after", "none"):
        run = optimize(
            load(folder, where),
            basic_prompt=tmp_path / "basic.txt",
            harmful=[f"w{10 + row} w7 ?" for row in range(20)],
            harmless=[f"w{10 + row} w8 ?" for row in range(20)],
            held_out_harmful=[f"w{40 + row} w7 ?" for row in range(10)],
            held_out_harmless=[f"w{40 + row} w8 ?" for row in range(10)],
            method="vpt",
            judge="paper",
            tools=0.2,
            tokens=4,
            epochs=1,
            output=tmp_path / where,
        )
        trained = [query for one in run.readings() for query in one.measurement.queries.texts]
        offered[where] = len({query for query in trained if tools_before(query)})
    assert offered["none"] == 0
    assert offered["after"] in (0, 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no file"),
        ("[", "is not valid JSON"),
        ("[]", "Tools are a list of functions"),
        ('[{"name": 3}]', "Tool 1 has no name"),
    ],
)
def test_the_command_reads_the_file_before_anything_slow(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "tools.json").write_text(content)
    failed = demur("evaluate", "no-such-model", "--tools", tmp_path / "tools.json")
    assert message in mistake(failed)


def test_the_command_measures_with_tools(folder: Path, tmp_path: Path) -> None:
    load(folder, "after")
    arguments = ["evaluate", folder, "--chat-template", folder.parent / "after.jinja"]
    arguments += ["--tools", "built-in", "--tokens", "2", "--output", tmp_path / "out"]
    (tmp_path / "q.txt").write_text("w7 w0 ?\n")
    out = done(demur(*arguments, "--harmful", tmp_path / "q.txt"))
    assert "with tools" in " ".join(out.split())


def test_a_run_with_tools_is_shown_again_by_its_command(folder: Path, tmp_path: Path) -> None:
    load(folder, "before")  # writes the template
    for name, word in (("harmful", 7), ("harmless", 8)):
        queries = [f"w{10 + row} w{word} w{row} ?" for row in range(20)]
        (tmp_path / f"{name}.txt").write_text("\n".join(queries))
    (tmp_path / "calm.txt").write_text("w1 w2 w3 .")
    command = [
        *("optimize", folder, "--dtype", "float32", "--method", "dro", "--preset", "quick"),
        *("--chat-template", folder.parent / "before.jinja", "--basic-prompt"),
        *(tmp_path / "calm.txt", "--judge", "paper", "--tools", "0.5", "--third-turn", "0"),
        *("--samples", "4", "--tokens", "4", "--epochs", "1", "--output", tmp_path / "run"),
    ]
    for name in ("harmful", "harmless"):
        file = tmp_path / f"{name}.txt"
        command += [f"--{name.replace('_', '-')}", file, f"--held-out-{name}", file]
    done(demur(*command))
    shown = demur(*command)
    done(shown)
    assert "This run is finished already" in shown.err
    line = mistake(demur(*command, "--tools", "0.2"))
    assert "belongs to a run with another anchors" in line
