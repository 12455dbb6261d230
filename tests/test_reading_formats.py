"""Queries and responses as other tools write them, and as people have them in JSON."""

from __future__ import annotations

import gzip
import importlib.util
import json
import zipfile
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from demur import Comparison, Conversation, DemurError, ResponseFiles, evaluate
from demur.evaluation.alpaca import AlpacaOutputs
from demur.progress import SilentProgress
from demur.queries import load_query_set
from demur.records import JudgedResponse, Rate

REFUSAL = "I'm sorry, but I cannot help with that."
ANSWER = "Sure! Here are the steps:\n1. Open it, then close it."
Row = dict[str, Any]
_NUMBERS = count()


class _Said(SilentProgress):
    """Collects messages; shows nothing."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def write(path: Path, rows: object) -> Path:
    """JSON, or JSON Lines, or either gzipped, by the file's name."""
    if ".jsonl" in path.name:
        assert isinstance(rows, list)
        content = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        content = json.dumps(rows, indent=1)
    data = content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def judged(*specs: Path | str, **options: Any) -> Comparison:
    folder = Path(str(specs[0])).parent / f"out-{next(_NUMBERS)}"
    return evaluate(ResponseFiles(list(specs)), judge="paper", output=folder, **options)


def responses(*specs: Path | str) -> list[JudgedResponse]:
    return list(judged(*specs).responses())


def rate(comparison: Comparison, prompt: str) -> Rate:
    found = comparison.find(prompt).refused
    assert found is not None
    return found


def complaint(*specs: Path | str) -> str:
    with pytest.raises(DemurError) as caught:
        judged(*specs)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def queries(spec: Path | str) -> list[Any]:
    return list(load_query_set(str(spec), "harmless").texts)


def query_complaint(spec: Path | str) -> str:
    with pytest.raises(DemurError) as caught:
        queries(spec)
    return str(caught.value)


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def assistant(text: str) -> Row:
    return {"role": "assistant", "content": text}


# --- JSON of one's own ------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["json", "jsonl", "json.gz", "jsonl.gz", "ndjson"])
def test_fields_of_rows(tmp_path: Path, ending: str) -> None:
    rows: list[Row] = [
        {"query": f"q{n}", "out": {"choices": [{"text": REFUSAL if n < 3 else ANSWER}]}}
        for n in range(8)
    ]
    path = tmp_path / f"r.{ending}"
    write(path if ending != "ndjson" else tmp_path / "r.jsonl", rows)
    if ending == "ndjson":
        (tmp_path / "r.jsonl").rename(path)
    assert queries(f"{path}:query") == [f"q{n}" for n in range(8)]
    assert queries(f"{path}:out.choices.0.text") == [REFUSAL, ANSWER]
    comparison = judged(f"{path}:out.choices.0.text")
    assert (rate(comparison, "r").count, rate(comparison, "r").queries) == (3, 8)
    assert "has no column 'out.choices.1.text'" in complaint(f"{path}:out.choices.1.text")
    assert "has no column 'response'" in complaint(path)


def test_rows_somewhere_in_a_document(tmp_path: Path) -> None:
    rows = [{"q": "a", "response": REFUSAL}, {"q": "b", "response": ANSWER}]
    nested = write(tmp_path / "n.json", {"info": {"by": "me"}, "results": {"rows": rows}})
    assert queries(f"{nested}:results.rows.q") == ["a", "b"]
    assert [one.response for one in responses(f"{nested}:results.rows.response")] == [
        REFUSAL,
        ANSWER,
    ]
    only = write(tmp_path / "o.json", {"version": 1, "rows": rows})
    assert queries(f"{only}:q") == queries(f"{only}:rows.q") == ["a", "b"]
    several = write(tmp_path / "s.json", {"a": rows, "b": rows})
    assert queries(f"{several}:b.q") == ["a", "b"]
    assert "has no list of rows at 'q'" in query_complaint(f"{several}:q")
    assert "several lists ('a', 'b'): name the field" in query_complaint(several)
    columns = write(tmp_path / "c.json", {"goal": ["a", "b"], "target": ["x", "y"]})
    assert queries(f"{columns}:goal") == ["a", "b"]
    texts = write(tmp_path / "t.json", ["a", " b ", "", "a"])
    assert queries(texts) == ["a", "b"]
    assert load_query_set(str(texts), "harmful").remark.startswith("t.json: 1 blank row and 1 ")
    assert "no rows" in query_complaint(write(tmp_path / "x.json", "text"))
    assert "no list of rows" in query_complaint(write(tmp_path / "y.json", {"a": {"b": "c"}}))


def test_json_under_the_other_name(tmp_path: Path) -> None:
    rows = [{"query": "a", "response": REFUSAL}, {"query": "b", "response": ANSWER}]
    lines, whole = tmp_path / "lines.json", tmp_path / "whole.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole.write_text(json.dumps(rows, indent=2))
    for path in (lines, whole):
        assert queries(f"{path}:query") == ["a", "b"]
        assert len(responses(path)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"response": "a", "response": "b"}]', "has the name 'response' twice in one object"),
        ('[{"response": "a"},]', "is not valid JSON (line 1, column"),
        ('[{"response": "a"}', "is not valid JSON"),
        ('[{"response": "a"}] x', "is not valid JSON"),
        ('{"response": "a"}\n{"response": }\n', "line 2 is not valid JSON"),
        ('[{"response": "a"}, 3]', "item 2"),
        ('[{"response": 3}]', "item 1: 'response' is not text but int"),
        ('[{"response": [1]}]', "item 1: 'response' is not text but int"),
        ('[{"response": []}]', "item 1: 'response' is an empty list"),
        ('[{"response": ""}]', "item 1: the response is blank"),
        ("[]", "holds no responses"),
        ('[{"query": "q", "response": "a"}, {"response": "b"}]', "item 2 has no 'query', which"),
        ("[" + "9" * 5000 + "]", "not valid JSON that can be read"),
        ('{"a": 1}', "no list of rows"),
    ],
)
def test_damaged_documents_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    assert message in complaint(path)


def test_several_responses_in_one_field_are_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", [{"query": "q", "responses": [REFUSAL, ANSWER, ANSWER]}])
    comparison = judged(f"{path}:responses")
    assert (comparison.find("r").responses, rate(comparison, "r").queries) == (3, 1)
    assert rate(comparison, "r").value == pytest.approx(1 / 3)


def test_columns_of_one_file_are_prompts(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    rows = "".join(f'q{n};"{REFUSAL}";"{ANSWER}"\n' for n in range(6))
    path.write_text(f"query;before;after\n{rows}")
    comparison = judged(f"{path}:before", f"{path}:after")
    assert rate(comparison, "r.csv:before").value == 1
    assert rate(comparison, "r.csv:after").value == 0
    assert comparison.differences[0].queries == 6
    assert "called 'r': rename one" in complaint(path, path)


# --- What names the queries, and what names the prompts ---------------------------------------


def test_a_prompt_column_without_a_query_column_holds_the_queries(tmp_path: Path) -> None:
    for field in ("prompt", "instruction", "question", "goal", "input"):
        rows = [{field: f"How do I do {n}?", "response": REFUSAL} for n in range(12)]
        folder = tmp_path / field
        folder.mkdir()
        progress = _Said()
        found = judged(write(folder / "r.json", rows), progress=progress)
        (rates,) = found.rates
        assert rates.prompt == "r"
        assert rate(found, "r").queries == 12
        assert [one.query for one in found.responses()] == [row[field] for row in rows]
        assert f"The column '{field}' of r.json is read as the queries." in progress.said


def test_instructions_keep_their_inputs(tmp_path: Path) -> None:
    rows = [{"instruction": "Sum up.", "input": "A text.", "response": ANSWER}]
    (found,) = responses(write(tmp_path / "r.json", rows))
    assert found.query == "Sum up.\n\nA text."


def test_responses_without_queries_count_by_themselves(tmp_path: Path) -> None:
    progress = _Said()
    path = write(tmp_path / "r.json", [{"asked": "q", "response": REFUSAL}] * 3)
    assert rate(judged(path, progress=progress), "r").queries == 3
    assert any("every response counts by itself" in one for one in progress.said)


def test_lists_of_texts_are_responses_or_queries(tmp_path: Path) -> None:
    texts = write(tmp_path / "t.json", [REFUSAL, ANSWER, REFUSAL])
    assert rate(judged(texts), "t").value == pytest.approx(2 / 3)
    lines = write(tmp_path / "t2.jsonl", [REFUSAL, ANSWER])
    assert [one.response for one in responses(lines)] == [REFUSAL, ANSWER]
    assert "item 2: the response is blank" in complaint(write(texts, [REFUSAL, " "]))
    assert "is a text without fields" in complaint(f"{write(texts, [{'a': 'b'}, REFUSAL])}:a")
    inner = write(tmp_path / "i.json", {"version": 1, "queries": ["a", "b"]})
    assert queries(inner) == queries(f"{inner}:queries") == ["a", "b"]
    assert "item 1 is a text of the list 'queries': if it holds the responses" in complaint(inner)
    assert [one.response for one in responses(f"{inner}:queries")] == ["a", "b"]
    talks = write(tmp_path / "c.json", [[user("a"), assistant("b"), user("c")], [user("d")]])
    assert queries(talks) == [Conversation("c", (("a", "b"),)), "d"]


def test_objects_that_hold_a_table(tmp_path: Path) -> None:
    """As `to_dict` and `to_json` of tables write them, in each of their forms."""
    rows = [{"query": "a", "response": REFUSAL}, {"query": "b", "response": ANSWER}]
    names = ["query", "response"]
    forms: list[object] = [
        {name: [row[name] for row in rows] for name in names},
        {name: {str(n): row[name] for n, row in enumerate(rows)} for name in names},
        {"columns": names, "index": [0, 1], "data": [list(row.values()) for row in rows]},
        {str(n): row for n, row in enumerate(rows)},
        {"case a": rows[0], "case b": rows[1]},
        {"schema": {"fields": names}, "data": rows},
    ]
    path = tmp_path / "r.json"
    for form in forms:
        found = responses(write(path, form))
        assert [(one.query, one.response) for one in found] == [("a", REFUSAL), ("b", ANSWER)]
        assert queries(path) == queries(f"{path}:query") == ["a", "b"]
    uneven = {"query": ["a", "b"], "response": [REFUSAL]}
    assert "several lists ('query', 'response')" in complaint(write(path, uneven))


def test_one_object_is_one_row(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", {"query": "a", "response": REFUSAL, "tags": ["x"]})
    assert [(one.query, one.response) for one in responses(path)] == [("a", REFUSAL)]
    assert queries(f"{path}:query") == ["a"]
    write(path, {"id": "1", "messages": [user("a"), assistant(ANSWER)]})
    assert [(one.query, one.response) for one in responses(path)] == [("a", ANSWER)]
    path.write_bytes(b'{"query": "a"}\r{"query": "b"}\r')
    assert queries(path) == ["a", "b"]


def test_an_object_called_prompt_is_no_query(tmp_path: Path) -> None:
    row = {"prompt": {"raw": "a", "label": "b"}, "response": {"output": REFUSAL}}
    progress = _Said()
    path = write(tmp_path / "r.json", {"results": {"results": [row], "stats": {"tests": 1}}})
    comparison = judged(f"{path}:results.results.response.output", progress=progress)
    assert rate(comparison, "r").value == 1
    assert any("every response counts by itself" in one for one in progress.said)


def test_the_usual_fields_need_no_name(tmp_path: Path) -> None:
    path = write(tmp_path / "q.json", [{"query": "a", "note": "b"}])
    assert queries(path) == ["a"]
    assert queries(write(path, [{"messages": [user("a"), assistant("b"), user("c")]}])) == [
        Conversation("c", (("a", "b"),))
    ]
    table = tmp_path / "q.csv"
    table.write_text("id,query\n1,a\n")
    assert queries(table) == ["a"]
    table.write_text("id,Query\n1,a\n")
    assert "needs the name of the column" in query_complaint(table)


def test_a_prompt_column_that_names_no_prompts_is_refused(tmp_path: Path) -> None:
    asked = [f"How do I do {n}?" for n in range(12)]
    path = tmp_path / "r.json"
    for prompts, message in (
        (asked, "is a text and no name of a safety prompt: if it holds the queries, call it"),
        ([f"<user>{one}" for one in asked], "has another value in each of 12 rows"),
        (["Be kind.\nBe safe."] * 12, "is a text and no name"),
        (["x" * 201] * 12, "is a text and no name"),
    ):
        write(
            path,
            [
                {"query": q, "prompt": p, "response": "a"}
                for q, p in zip(asked, prompts, strict=True)
            ],
        )
        assert message in complaint(path)
    write(path, [{"prompt": name, "response": ANSWER} for name in ("none", "long")])
    assert "it holds 'none': call it 'safety_prompt' if it names safety prompts" in complaint(path)
    write(path, [{"safety_prompt": name, "response": ANSWER} for name in ("none", "long")])
    assert [rates.prompt for rates in judged(path).rates] == ["none", "long"]


# --- Conversations ----------------------------------------------------------------------------


def test_conversations_with_their_answers(tmp_path: Path) -> None:
    rows = [
        {"messages": [user("a"), assistant(REFUSAL)]},
        {"messages": [user("a"), assistant("b"), user("c"), assistant(ANSWER)]},
        {
            "messages": [
                user("d"),
                {"role": "assistant", "content": [{"type": "text", "text": "e"}]},
            ]
        },
    ]
    found = responses(write(tmp_path / "r.jsonl", rows))
    assert [one.response for one in found] == [REFUSAL, ANSWER, "e"]
    assert [one.query for one in found] == ["a", Conversation("c", (("a", "b"),)), "d"]
    assert {one.prompt for one in found} == {"r"}
    assert "ends with the assistant" in query_complaint(f"{tmp_path / 'r.jsonl'}:messages")


def test_conversations_in_any_field(tmp_path: Path) -> None:
    """As data sets of preferences and of dialogues have them."""
    rows = [
        {
            "prompt": [{"role": "system", "content": "x"}, user("a")],
            "completion": [assistant(REFUSAL)],
            "chosen": [user("a"), assistant(ANSWER)],
        }
    ]
    path = write(tmp_path / "r.json", rows)
    (completed,), (chosen,) = responses(f"{path}:completion"), responses(f"{path}:chosen")
    assert (completed.query, completed.response) == ("a", REFUSAL)
    assert (chosen.query, chosen.response) == ("a", ANSWER)
    del rows[0]["prompt"]
    (alone,) = responses(f"{write(path, rows)}:chosen")
    assert (alone.query, alone.response) == ("a", ANSWER)
    talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    shared = write(tmp_path / "s.json", [{"conversations": talk}])
    for spec in (shared, f"{shared}:conversations"):
        progress = _Said()
        (said,) = judged(spec, progress=progress).responses()
        assert (said.query, said.response) == ("a", "b")
        assert not any("counts by itself" in one for one in progress.said)
    talk.append({"from": "human", "value": "c"})
    write(shared, [{"conversations": talk}])
    assert queries(f"{shared}:conversations") == [Conversation("c", (("a", "b"),))]
    assert queries(shared) == [Conversation("c", (("a", "b"),))]
    assert "'conversations' ends with the user: end with" in complaint(f"{shared}:conversations")


def test_system_messages_tell_conditions_apart(tmp_path: Path) -> None:
    def rows(system: str | None, answer: str) -> list[Row]:
        opening = [] if system is None else [{"role": "system", "content": system}]
        return [{"messages": [*opening, user(f"q{n}"), assistant(answer)]} for n in range(6)]

    one = write(tmp_path / "one.jsonl", rows("Be kind.", REFUSAL) + rows("Be safe.", ANSWER))
    two = write(tmp_path / "two.jsonl", rows("Be kind.", ANSWER) + rows(None, REFUSAL))
    comparison = judged(one, two)
    found = {rates.prompt: rate(comparison, rates.prompt).value for rates in comparison.rates}
    assert found == {"one": 1, "one (2)": 0, "two": 0, "two (2)": 1}
    # The queries are the same ones, whatever opened their conversations.
    assert {difference.queries for difference in comparison.differences} == {6}
    many = [row for n in range(60) for row in rows(f"Be {n}.", ANSWER)[:1]]
    assert "more than 50 different system messages" in complaint(
        write(tmp_path / "many.jsonl", many)
    )


# --- Tools ------------------------------------------------------------------------------------


def test_outputs_of_alpaca_eval_and_of_demur(tmp_path: Path) -> None:
    rows = [
        {"dataset": "d", "instruction": f"Do {n}.", "output": REFUSAL, "generator": "m-long"}
        for n in range(5)
    ]
    rows[4]["output"] = ""
    path = write(tmp_path / "model_outputs.json", rows)
    assert queries(path) == [row["instruction"] for row in rows]
    own = tmp_path / "own.json"
    AlpacaOutputs(tuple(row["instruction"] for row in rows), (ANSWER,) * 5, "m-none").save(own)
    comparison = judged(path, own)
    assert (rate(comparison, "m-long").value, rate(comparison, "m-long").queries) == (1, 4)
    assert comparison.find("m-long").no_answer == 1
    assert rate(comparison, "m-none").value == 0
    again = write(tmp_path / "again.json", rows)
    assert "outputs of one 'generator', 'm-long'" in complaint(path, again)
    rows[1]["input"] = "With this."
    assert queries(write(path, rows))[1] == "Do 1.\n\nWith this."
    del rows[3]["instruction"]
    assert "item 4 is not of outputs of alpaca_eval" in complaint(write(path, rows))


def harness_row(n: int, filter_name: str, sent: object, answers: list[str]) -> Row:
    return {
        "doc_id": n,
        "doc": {"goal": f"g{n}"},
        "target": "",
        "arguments": {"gen_args_0": {"arg_0": sent, "arg_1": {"until": ["\n"]}}},
        "resps": [answers],
        "filtered_resps": ["cut"],
        "filter": filter_name,
        "metrics": ["exact_match"],
        "exact_match": float("nan"),
    }


def test_samples_of_lm_evaluation_harness(tmp_path: Path) -> None:
    rows = [
        harness_row(n, name, json.dumps([{"role": "system", "content": "x"}, user(f"q{n}")]), ["a"])
        for n in range(3)
        for name in ("strict", "flexible")
    ]
    progress = _Said()
    path = write(tmp_path / "samples_t.jsonl", rows)
    found = judged(path, progress=progress)
    assert [one.query for one in found.responses()] == ["q0", "q1", "q2"]
    assert "samples_t.jsonl: 3 rows without a response of their own left out." in progress.said
    rows = [harness_row(n, "none", f"Q: {n}\nA:", [REFUSAL, ANSWER]) for n in range(3)]
    other = write(tmp_path / "samples_u.jsonl", rows)
    assert queries(other) == ["Q: 0\nA:", "Q: 1\nA:", "Q: 2\nA:"]
    assert queries(f"{other}:doc.goal") == ["g0", "g1", "g2"]
    rows[1]["arguments"] = {
        f"gen_args_{k}": {"arg_0": "Q", "arg_1": f" answer {k}"} for k in range(2)
    }
    assert "line 2 holds no generated text but scores" in complaint(write(other, rows))


def test_messages_in_samples_of_lm_evaluation_harness(tmp_path: Path) -> None:
    """Each version writes them in another way."""
    said = [{"role": "system", "content": "Be kind."}, user("q")]
    path = tmp_path / "samples_t.jsonl"
    for sent in (said, json.dumps(said), [json.dumps(said)], json.dumps(said, indent=1)):
        write(path, [harness_row(0, "none", sent, [REFUSAL])])
        (found,) = responses(path)
        assert (found.query, found.condition is None) == ("q", False)
        assert queries(path) == [Conversation("q", system_prompt="Be kind.")]
    for text in ('[{"a": 1}] is JSON. What is next?', '[{"a": 1}]'):
        write(path, [harness_row(0, "none", text, [REFUSAL])])
        assert queries(path) == [text]
    older = harness_row(0, "none", "q", [REFUSAL, ANSWER])
    older["arguments"] = [["q", {"until": []}]]
    del older["filter"]
    assert len(responses(write(tmp_path / "t.json", [older]))) == 2
    for field in ("resps", "resps.0", "filtered_resps"):
        assert len(responses(f"{tmp_path / 't.json'}:{field}")) == (field != "filtered_resps") + 1


def test_completions_of_harmbench(tmp_path: Path) -> None:
    case = {"behavior": "b", "test_case": "q", "generation": REFUSAL, "label": 0}
    rows = {"one": [case, {**case, "test_case": "r"}], "two": [{**case, "generation": ANSWER}]}
    path = write(tmp_path / "m.json", rows)
    found = responses(path)
    assert [(one.query, one.refused) for one in found] == [("q", True), ("r", True), ("q", False)]
    assert {one.label for one in found} == {"harmful"}
    assert queries(path) == ["q", "r"]


def batch(path: Path, asked: list[list[Row]]) -> Path:
    return write(
        path,
        [
            {
                "custom_id": f"r{n}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "m", "messages": messages},
            }
            for n, messages in enumerate(asked)
        ],
    )


def answered(n: int, message: Row | None = None, end: str = "stop", **other: Any) -> Row:
    body = {"choices": [{"index": 0, "message": message, "finish_reason": end}]}
    given = {"status_code": 200, "request_id": "x", "body": body}
    return {"id": f"b{n}", "custom_id": f"r{n}", "response": given, "error": None, **other}


def test_batches_of_openai(tmp_path: Path) -> None:
    asked = batch(tmp_path / "in.jsonl", [[user(f"q{n}")] for n in range(8)])
    assert queries(asked) == [f"q{n}" for n in range(8)]
    rows = [
        answered(7, assistant(ANSWER)),  # the answers come in any order
        answered(0, {"role": "assistant", "content": None, "refusal": "No."}),
        answered(1, {"role": "assistant", "content": ""}, "content_filter"),
        answered(2, {"role": "assistant", "content": None, "tool_calls": [1]}, "tool_calls"),
        answered(3, response=None, error={"code": "batch_expired", "message": "late"}),
        answered(4, response={"status_code": 429, "body": {"error": {"message": "slow"}}}),
        answered(5, assistant(REFUSAL)),
    ]
    out = write(tmp_path / "out.jsonl", rows)
    comparison = judged(asked, out)
    found = list(comparison.responses())
    assert [one.query for one in found] == ["q7", "q0", "q1", "q2", "q3", "q4", "q5"]
    assert [one.refused for one in found] == [False, True, None, None, None, None, True]
    assert [one.is_answer for one in found] == [True, True, False, False, False, False, True]
    assert [one.end for one in found][1:6] == [
        "refusal",
        "content_filter",
        "tool_calls",
        "failed: batch_expired",
        "failed: 429",
    ]
    assert rate(comparison, "out").value == pytest.approx(2 / 3)
    named = f"{out}:response.body.choices.0.message.content"
    assert [one.refused for one in responses(asked, named)][2:] == [None] * 4 + [True]
    assert "'in.jsonl' holds requests" in complaint(asked).replace(str(tmp_path) + "/", "")
    lone = tmp_path / "lone"
    lone.mkdir()
    progress = _Said()
    alone = judged(write(lone / "out.jsonl", rows), progress=progress)
    assert {one.query for one in alone.responses()} == {None}
    assert any("give the file of the requests with --responses" in one for one in progress.said)
    rows.append(answered(99, assistant(ANSWER)))
    assert "answers the request 'r99', which no file of requests has" in complaint(
        asked, write(out, rows)
    )


def test_queries_that_a_filter_blocked_in_a_batch_are_counted_as_such(tmp_path: Path) -> None:
    azure = {"code": "content_filter", "message": "The response was filtered."}
    inner = {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}
    rows = [
        answered(0, response={"status_code": 400, "body": {"error": azure}}),
        answered(1, response=None, error=azure),
        answered(2, response={"status_code": 400, "body": {"error": inner}}),
        answered(3, response={"status_code": 400, "body": {"error": {"code": "bad"}}}),
        answered(4, assistant(REFUSAL)),
    ]
    comparison = judged(write(tmp_path / "out.jsonl", rows))
    (rates,) = comparison.rates
    assert (rates.filtered, rates.no_answer) == (3, 1)
    assert rate(comparison, "out").value == 1


def test_batches_with_system_texts_and_of_the_api_of_responses(tmp_path: Path) -> None:
    said = [{"role": "system", "content": "Be kind."}, user("a")]
    asked = batch(tmp_path / "in.jsonl", [said])
    assert queries(asked) == [Conversation("a", system_prompt="Be kind.")]
    parts = [{"type": "output_text", "text": "Su"}, {"type": "output_text", "text": "re"}]
    output = [{"type": "reasoning"}, {"type": "message", "role": "assistant", "content": parts}]
    body = {"status": "completed", "output": output}
    row = {"custom_id": "r0", "response": {"status_code": 200, "body": body}, "error": None}
    (found,) = responses(asked, write(tmp_path / "out.jsonl", [row]))
    assert (found.response, found.end, found.query) == ("Sure", "completed", "a")
    assert found.condition is not None
    assert "is an answer of a batch, without its query: give" in query_complaint(
        tmp_path / "out.jsonl"
    )
    body = {"model": "m", "instructions": " Be safe. ", "input": said}
    newer = write(tmp_path / "new.jsonl", [{"custom_id": "r0", "method": "POST", "body": body}])
    assert queries(newer) == [Conversation("a", system_prompt="Be safe.\n\nBe kind.")]
    body = {"model": "m", "instructions": "Be safe.", "input": "b"}
    write(newer, [{"custom_id": "r0", "method": "POST", "body": body}])
    assert queries(newer) == [Conversation("b", system_prompt="Be safe.")]
    twice = write(asked, [json.loads(asked.read_text())] * 2)
    assert "repeats the custom_id 'r0'" in complaint(twice, tmp_path / "out.jsonl")


def sample(n: int, asked: object, **more: Any) -> Row:
    said = [{"role": "system", "content": "Be kind."}, user("?"), assistant(ANSWER)]
    choice = {"message": assistant(REFUSAL), "stop_reason": "stop"}
    return {
        "id": n,
        "epoch": 1,
        "input": asked,
        "target": "",
        "messages": said,
        "output": {"model": "m", "choices": [choice], "completion": REFUSAL},
        "scores": {},
        "metadata": {"label": "harmful"},
        "attachments": {},
        **more,
    }


def log_samples() -> list[Row]:
    whole = [{"role": "user", "content": "a"}, assistant("b"), {"role": "user", "content": "c"}]
    cut = {"message": assistant(""), "stop_reason": "content_filter"}
    return [
        sample(1, "q1"),
        sample(2, whole, metadata={}),
        sample(3, "q3", output={"choices": [cut], "completion": ""}),
        sample(4, "q4", output={"choices": [], "completion": ""}, error={"message": "late"}),
        sample(5, "attachment://h", attachments={"h": "q5"}),
    ]


@pytest.mark.parametrize("ending", ["json", "eval"])
def test_logs_of_inspect(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"log.{ending}"
    if ending == "json":
        log = {"version": 2, "status": "success", "eval": {"task": "t"}, "tags": ["x"]}
        write(path, {**log, "samples": log_samples()})
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("header.json", "{}")
            archive.writestr("_journal/summaries/1.json", "[]")
            for row in log_samples():
                archive.writestr(f"samples/{row['id']}_epoch_1.json", json.dumps(row))
    assert queries(path) == ["q1", Conversation("c", (("a", "b"),)), "q3", "q4", "q5"]
    found = responses(path)
    assert [one.refused for one in found] == [True, True, None, None, True]
    assert [one.end for one in found] == ["stop", "stop", "content_filter", "failed", "stop"]
    assert [one.label for one in found] == ["harmful", None, "harmful", "harmful", "harmful"]
    assert {one.prompt for one in found} == {"log"}


def test_logs_of_the_task_of_demur_name_what_they_measured(tmp_path: Path) -> None:
    known = {"label": "harmful", "set": "mine", "category": "c", "prompt": "long"}
    rows = [
        sample(1, "q1", metadata={**known, "condition": "a" * 64}),
        sample(2, "q2", metadata={**known, "condition": "b", "prompt": "none"}),
    ]
    one, two = responses(write(tmp_path / "log.json", {"eval": {}, "samples": rows}))
    assert (one.prompt, one.condition, one.set, one.category) == ("long", "a" * 64, "mine", "c")
    assert two.prompt == "none"
    assert two.condition not in (None, "b")  # told by the system message


def test_damaged_logs_of_inspect(tmp_path: Path) -> None:
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples/1_epoch_1.json", json.dumps(sample(1, "q")))
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:60], whole.replace(whole[60:70], b"\0" * 10)):
        path.write_bytes(content)
        assert "is no log of Inspect, or a damaged one" in complaint(path)
    if importlib.util.find_spec("zipfile_zstd") is None:
        zstd = whole.replace(b"\x08\x00", b"\x5d\x00")
        path.write_bytes(zstd)
        assert "pip install 'demur[inspect]'`, or convert it with" in complaint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", "{}")
    assert "holds no responses" in complaint(path)


def test_artifacts_of_jailbreakbench(tmp_path: Path) -> None:
    rows = [
        {
            "index": n,
            "goal": f"goal {n}",
            "behavior": "b",
            "category": "Privacy",
            "prompt": None if n == 2 else f"attack {n}",
            "response": None if n == 2 else REFUSAL,
            "jailbroken": False,
        }
        for n in range(6)
    ]
    path = write(tmp_path / "pair.json", {"parameters": {"model": "m"}, "jailbreaks": rows})
    assert queries(path) == ["attack 0", "attack 1", "attack 3", "attack 4", "attack 5"]
    assert load_query_set(str(path), "harmful").remark == "pair.json: 1 blank row left out, 5 kept."
    assert queries(f"{path}:goal") == [f"goal {n}" for n in range(6)]
    assert len(responses(f"{path}:response")) == len(responses(f"{path}:jailbreaks.response")) == 5
    progress = _Said()
    comparison = judged(path, progress=progress)
    assert rate(comparison, "pair").queries == 5
    assert comparison.find("pair", label="harmful", category="Privacy").responses == 5
    assert "pair.json: 1 row without a response of their own left out." in progress.said


def test_measurements_of_demur_as_queries(tmp_path: Path) -> None:
    rows = [
        {"query": "a", "response": REFUSAL, "label": "harmful"},
        {"query": {"text": "c", "history": [["a", "b"]]}, "response": ANSWER, "label": "harmful"},
    ]
    found = judged(write(tmp_path / "r.jsonl", rows))
    assert found.path is not None
    (stored,) = (found.path / "measurements").glob("*.jsonl")
    assert queries(f"{stored}:query") == ["a", Conversation("c", (("a", "b"),))]
    broken = [{"query": {"text": "", "history": []}, "response": "a"}]
    assert "is no text and no conversation as demur writes it" in complaint(
        write(tmp_path / "s.jsonl", broken)
    )


@pytest.mark.parametrize(
    "field", ["messages", "response"], ids=["a conversation", "the answer alone"]
)
@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "refusal": "Nope."},
        {"role": "assistant", "content": " ", "refusal": "Nope."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "Nope."}]},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": ""}, {"type": "refusal", "refusal": "Nope."}],
        },
    ],
    ids=["null", "blank", "a part", "a part behind a blank one"],
)
def test_a_refusal_in_a_field_of_its_own_counts_as_one(
    tmp_path: Path, field: str, message: Row
) -> None:
    def row(said: Row) -> Row:
        return {"query": "q", field: [said]} if field == "response" else {field: [user("q"), said]}

    # The judge alone would take neither text for what it is.
    rows = [row(message), row({**assistant(ANSWER), "refusal": "Nope."})]
    found = responses(write(tmp_path / "in.jsonl", rows))
    assert [one.response for one in found] == ["Nope.", ANSWER]
    assert [one.refused for one in found] == [True, False]
    assert [one.end for one in found] == ["refusal", None]


def test_a_refusal_in_the_history_is_what_the_assistant_said(tmp_path: Path) -> None:
    said = {"role": "assistant", "content": None, "refusal": "Nope."}
    rows = [{"messages": [user("a"), said, user("b"), assistant(ANSWER)]}]
    (found,) = responses(write(tmp_path / "in.jsonl", rows))
    assert found.query == Conversation("b", (("a", "Nope."),))
    assert not found.refused
