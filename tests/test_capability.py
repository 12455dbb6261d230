"""What a prompt costs in ability: tasks of lm-eval without the prompt and with it."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from demur import ChatModel, Condition, Conversation, DemurError, SafetyPrompt
from demur.capability import Capability, CapabilitySettings, carry_out, make_plan
from demur.capability.results import Change, changes_in_words, paired_interval
from demur.chat.engine import SamplingSettings
from demur.exports import export
from demur.progress import SilentProgress
from tests.command_line import demur, mistake
from tests.endpoint_server import running_socket
from tests.tiny import save_tiny_model

try:
    import lm_eval
    from lm_eval.tasks import TaskManager
except ImportError:
    pytest.skip("lm-eval is not installed: run `make capability`", allow_module_level=True)

from demur.capability.harness import Harness

TEXT = "w1 w2 w3 w4 w5 ."
ROWS = 8
CHOICES = ["w11 w13", "w21", "w31 w32 w33"]
QUESTIONS = [f"w{7 + row} w{40 + row} ?" for row in range(ROWS)]
GOLD = [row % 3 for row in range(ROWS)]
WORDS = ["w50", "w51"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> ChatModel:
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tasks, whose data lies beside them; there is no network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    here = tmp_path / "tasks"
    here.mkdir()
    rows = [
        {"question": question, "choices": CHOICES, "gold": gold}
        for question, gold in zip(QUESTIONS, GOLD, strict=True)
    ]
    data = here / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = f"""dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
fewshot_split: test
doc_to_text: "{{{{question}}}}"
"""
    choice = f"""{common}output_type: multiple_choice
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - metric: acc
  - metric: acc_norm
"""
    (here / "choices.yaml").write_text(f"task: tiny_choices\n{choice}")
    (here / "described.yaml").write_text(
        f"task: tiny_described\n{choice}description: w60 w61\nnum_fewshot: 1\n"
        "fewshot_config:\n  sampler: first_n\n"
    )
    (here / "answers.yaml").write_text(
        f"""task: tiny_answers
{common}output_type: generate_until
doc_to_target: "{{{{choices[gold]}}}}"
generation_kwargs:
  until: ["w9", "w19"]
  max_gen_toks: 5
metric_list:
  - metric: exact_match
"""
    )
    (here / "texts.yaml").write_text(
        f"""task: tiny_texts
{common}output_type: loglikelihood_rolling
doc_to_target: ""
metric_list:
  - metric: word_perplexity
"""
    )
    (here / "lost.yaml").write_text(
        "task: tiny_lost\n" + choice.replace(str(data), str(here / "nothing.jsonl"))
    )
    return here


def plan_of(tasks: Path, *names: str, prompt: SafetyPrompt | None = None, **options: Any) -> Any:
    settings = CapabilitySettings(
        prompt="long", tasks=names, include_path=str(tasks), **{"limit": ROWS, **options}
    )
    return make_plan(settings, SilentProgress(), prompt or SafetyPrompt("mine", TEXT))


def accuracy(model: ChatModel, condition: Condition, queries: list[Any], by_length: bool) -> float:
    """How often the right choice is the likeliest."""
    read = model.score(queries, [CHOICES] * len(queries), condition)
    hits = []
    for gold, values in zip(GOLD, read.by_target(), strict=True):
        sums = [
            float(one.sum()) / (len(text) if by_length else 1)
            for one, text in zip(values, CHOICES, strict=True)
        ]
        hits.append(sums.index(max(sums)) == gold)
    return fmean(hits)


@pytest.mark.parametrize("trained", [False, True])
def test_choices_are_scored_behind_the_prompt(
    model: ChatModel, tasks: Path, tmp_path: Path, trained: bool
) -> None:
    prompt = SafetyPrompt("mine", TEXT)
    if trained:
        rows = model.prompt_embeddings(prompt)
        prompt = SafetyPrompt("mine", TEXT, rows + 0.5 * rows.roll(1, 0))
    plan = plan_of(tasks, "tiny_choices", prompt=prompt)
    capability = carry_out(plan, model, tmp_path / "out")
    acc, norm = capability.changes
    assert [(one.task, one.metric, one.samples) for one in (acc, norm)] == [
        ("tiny_choices", "acc", ROWS),
        ("tiny_choices", "acc_norm", ROWS),
    ]
    for one, by_length in ((acc, False), (norm, True)):
        assert one.before == accuracy(model, Condition(), QUESTIONS, by_length)
        assert one.after == accuracy(model, Condition(prompt), QUESTIONS, by_length)
        assert one.interval is not None
        assert one.interval.low < one.difference < one.interval.high
        assert one.p_value is not None
        assert f"{100 * one.difference:+.1f} points" in one.in_words
    assert [one.name for one in capability.settings.conditions] == ["none", "mine"]
    assert Capability.load(tmp_path / "out") == capability


def test_an_export_scores_the_same_in_lm_eval_itself(
    model: ChatModel, tasks: Path, tmp_path: Path
) -> None:
    rows = model.prompt_embeddings(SafetyPrompt("mine", TEXT))
    prompt = SafetyPrompt("mine", TEXT, rows + 0.5 * rows.roll(1, 0))
    capability = carry_out(plan_of(tasks, "tiny_choices", prompt=prompt), model, tmp_path / "out")
    export(prompt, "transformers", tmp_path / "exported", model=model)
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(tmp_path / "exported"), "device": "cpu", "dtype": "float32"},
        tasks=["tiny_choices"],
        task_manager=TaskManager(include_path=str(tasks)),
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    (scores,) = capability.results.after
    for metric in scores.metrics:
        rows_of = sorted(found["samples"]["tiny_choices"], key=lambda row: row["doc_id"])
        assert [row[metric.metric] for row in rows_of] == list(metric.samples)


def test_examples_and_a_description_are_messages(
    model: ChatModel, tasks: Path, tmp_path: Path
) -> None:
    capability = carry_out(plan_of(tasks, "tiny_described"), model, tmp_path / "out")
    # The sample itself is never its own example.
    first, second = QUESTIONS[:2]
    queries = [
        Conversation(
            question,
            ((second, CHOICES[GOLD[1]]) if question == first else (first, CHOICES[GOLD[0]]),),
            "w60 w61",
        )
        for question in QUESTIONS
    ]
    prompt = Condition(SafetyPrompt("mine", TEXT))
    (acc, _) = capability.changes
    assert acc.before == accuracy(model, Condition(), queries, False)
    assert acc.after == accuracy(model, prompt, queries, False)


def test_answers_are_generated_and_cut_at_their_stops(
    model: ChatModel, tasks: Path, tmp_path: Path
) -> None:
    settings = SamplingSettings(samples=1, most_tokens=5, temperature=0)
    read = model.read_and_sample(QUESTIONS, Condition(), settings)
    wanted = []
    for (sample,) in read.samples:
        ends = [sample.text.index(stop) for stop in ("w9", "w19") if stop in sample.text]
        wanted.append(sample.text[: min(ends)] if ends else sample.text)
    assert len(set(wanted)) > 1
    data = [json.loads(line) for line in (tasks / "rows.jsonl").read_text().splitlines()]
    for place, row in enumerate(data):  # every other answer is the right one
        row["choices"] = [wanted[place].strip() if place % 2 else "w88"] * 3
    (tasks / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    capability = carry_out(plan_of(tasks, "tiny_answers"), model, tmp_path / "out")
    (change,) = capability.changes
    (before,) = capability.results.before
    stripped = [float(text == text.strip()) for text in wanted]
    expected = [right * (place % 2) for place, right in enumerate(stripped)]
    assert before.metrics[0].samples == tuple(expected)
    assert change.before == fmean(expected) > 0


def test_a_check_goes_on_after_the_last_task(
    model: ChatModel, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    scores = Harness.scores

    def counting(self: Harness, conditioned: Any, task: str, *rest: Any) -> Any:
        done.append((task, conditioned.condition.name))
        if len(done) == 4:
            raise KeyboardInterrupt
        return scores(self, conditioned, task, *rest)

    monkeypatch.setattr(Harness, "scores", counting)
    out = tmp_path / "out"
    names = ("tiny_choices", "tiny_answers")
    with pytest.raises(KeyboardInterrupt):
        carry_out(plan_of(tasks, *names), model, out)
    with pytest.raises(DemurError, match="is not finished"):
        Capability.load(out)
    found = carry_out(plan_of(tasks, *names), model, out)
    assert done[3:] == [("tiny_answers", "mine"), ("tiny_answers", "mine")]
    assert {one.task for one in found.changes} == set(names)
    assert carry_out(plan_of(tasks, *names), model, out) == found
    assert len(done) == 5
    with pytest.raises(DemurError, match="another"):
        carry_out(plan_of(tasks, *names, limit=3), model, out)
    file = next((out / "scores").iterdir())
    file.write_bytes(file.read_bytes()[:-40])
    (out / "results.json").unlink()
    with pytest.raises(DemurError, match=f"{file.name} is damaged: delete it"):
        carry_out(plan_of(tasks, *names), model, out)
    file.unlink()
    assert carry_out(plan_of(tasks, *names), model, out) == found
    whole = file.read_bytes()
    file.unlink()
    assert carry_out(plan_of(tasks, *names), model, out) == found
    assert file.read_bytes() == whole  # made again, though the check has finished


def test_the_command(
    folder: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text(TEXT)
    arguments = ["capability", "mine.txt", "--model", str(folder), "--dtype", "float32"]
    arguments += ["--include-path", str(tasks), "--tasks", "tiny_choices", "--limit", "5"]
    result = demur(*arguments, "--output", "out")
    assert result.status == 0
    assert "tiny_choices" in result.out
    assert "acc_norm" in result.out
    assert result.out.splitlines()[-1].startswith("Next: ")
    assert "1 of 2  Checking tiny_choices: none: done" in result.err
    assert "2 of 2  Checking tiny_choices: mine.txt: done" in result.err
    shown = demur("show", "out")
    assert shown.status == 0
    assert "tiny_choices" in shown.out
    found = Capability.load("out")
    assert found.changes[0].samples == 5
    again = demur("capability", "mine.txt", "--config", "out/settings.json", "--output", "again")
    assert again.status == 0, again.err
    assert Capability.load("again").changes == found.changes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "tiny_choice"], "did you mean 'tiny_choices'?"),
        (["--tasks", "tiny_choices", "--tasks", "tiny_choices"], "is given twice"),
        (["--tasks", "tiny_lost"], "The task 'tiny_lost' cannot be loaded"),
        (["--tasks", "tiny_choices", "--include-path", "nowhere"], "There is no folder 'nowhere'"),
        (["--limit", "0"], "--limit"),
    ],
)
def test_a_mistake_is_one_line_before_the_model_is_loaded(
    tasks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("demur.chat.chosen.load_chosen", None)
    given = ["--include-path", str(tasks), *arguments]
    if "--include-path" in arguments:
        given = arguments
    assert message in mistake(demur("capability", "long", *given))
    assert not Path("demur-capability").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "n/a"])
@pytest.mark.parametrize("call", [1, 2])
def test_a_metric_that_is_no_number_ends_the_check(
    model: ChatModel,
    tasks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: object,
    call: int,
) -> None:
    own, calls = lm_eval.simple_evaluate, []

    def evaluated(**options: Any) -> Any:
        found = own(**options)
        calls.append(1)
        if len(calls) == call:
            for task in found["results"].values():
                task.update({key: value for key in task if key.startswith("acc")})
        return found

    monkeypatch.setattr(lm_eval, "simple_evaluate", evaluated)
    wanted = "has no metric that is a number" if value == "n/a" else f"is {value} and no number"
    with pytest.raises(DemurError, match=wanted):
        carry_out(plan_of(tasks, "tiny_choices"), model, tmp_path / "out")
    monkeypatch.setattr(lm_eval, "simple_evaluate", own)
    assert len(carry_out(plan_of(tasks, "tiny_choices"), model, tmp_path / "out").changes) == 2


def test_a_metric_that_came_once_is_not_compared(
    model: ChatModel, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, calls = lm_eval.simple_evaluate, []

    def evaluated(**options: Any) -> Any:
        found = own(**options)
        calls.append(1)
        if len(calls) == 2:
            del found["results"]["tiny_choices"]["acc,none"]
        return found

    monkeypatch.setattr(lm_eval, "simple_evaluate", evaluated)
    with pytest.raises(DemurError, match="'tiny_choices' changed between the two checks: delete"):
        carry_out(plan_of(tasks, "tiny_choices"), model, tmp_path / "out")


def test_a_metric_of_another_scale_has_no_percent() -> None:
    share = Change("t", "acc", 10, 0.5, 0.25, None, None)
    assert "50.0 % before and 25.0 % after, -25.0 points, not tested" in share.in_words
    other = Change("t", "bleu", 10, 27.25, 26.0, None, None)
    assert "27.2 before and 26.0 after, -1.2, not tested" in other.in_words


def test_the_sentence_names_what_changed_by_more_than_chance() -> None:
    same = Change("a", "acc", 10, 0.5, 0.4, None, 0.2)
    untested = Change("b", "acc", 10, 0.5, 0.1, None, None)
    assert changes_in_words([same, untested]) == "No task changed by more than chance."
    worse = Change("c", "acc", 10, 0.5, 0.25, None, 0.01)
    better = Change("d", "acc", 10, 0.5, 0.75, None, 0.01)
    other = Change("e", "perplexity", 10, 27.0, 20.0, None, 0.01)
    assert changes_in_words([same, better, worse, other]) == (
        "Worse: c (acc) -25.0 points; Better: d (acc) +25.0 points; "
        "Changed: e (perplexity) -7.0, more than chance."
    )
    assert [one.is_worse for one in (same, untested, worse, better, other)] == [
        *(False, False, True, False, False)
    ]


def test_no_prompt_and_texts_are_refused(
    model: ChatModel, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "No prompt changes nothing" in mistake(demur("capability", "none"))
    with pytest.raises(DemurError, match="measures the perplexity of texts"):
        carry_out(plan_of(tasks, "tiny_texts"), model, tmp_path / "out")


def test_the_interval_of_paired_samples() -> None:
    # Agresti and Min's example: 1,600 pairs, of which 86 changed one way and 150 the other.
    found = paired_interval([1.0] * 86 + [-1.0] * 150 + [0.0] * 1364)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((-0.0587, -0.0211), abs=3e-4)
    same = paired_interval([0.0] * 50)
    assert same is not None
    assert same.low == pytest.approx(-same.high)
    assert 0.02 < same.high < 0.06
    assert paired_interval([0.25]) is None
    student = paired_interval([0.5, -0.25, 0.25])
    assert student is not None
    assert student.low < 1 / 6 < student.high


def test_a_hub_that_fails_is_given_up_in_seconds(
    tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package `datasets` would ask for most of a minute."""
    (tasks / "hub.yaml").write_text(
        "task: tiny_hub\ndataset_path: org/rows\ntest_split: test\noutput_type: generate_until\n"
        'doc_to_text: "{{question}}"\ndoc_to_target: w1\nmetric_list:\n  - metric: exact_match\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    asked: list[str] = []

    def fail(connection: socket.socket) -> None:
        asked.append("once")
        connection.sendall(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with running_socket(fail) as url:
        monkeypatch.setenv("HF_ENDPOINT", url.removesuffix("/v1"))
        begun = time.monotonic()
        arguments = ["--include-path", tasks, "--tasks", "tiny_hub"]
        said = mistake(demur("capability", "long", *arguments))
    assert "Cannot load dataset 'org/rows', because the hub does not answer (" in said
    assert said.endswith("or give a task of your own with --include-path.")
    assert 0 < len(asked) < 5
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{{question", "cannot be loaded (TemplateSyntaxError: "),
        ("{{nothing}}", "cannot be loaded (UndefinedError: "),
    ],
)
def test_a_broken_task_is_not_said_to_be_a_broken_connection(
    tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tasks / "answers.yaml"
    file.write_text(file.read_text().replace("{{question}}", change))
    arguments = ["--include-path", tasks, "--tasks", "tiny_answers"]
    said = mistake(demur("capability", "long", *arguments))
    assert message in said
    assert said.endswith(": correct its YAML file if it is yours, or choose another task.")


def test_answers_that_have_no_room_are_said_to_be_the_tasks(
    model: ChatModel, tasks: Path, tmp_path: Path
) -> None:
    file = tasks / "answers.yaml"
    file.write_text(file.read_text().replace("max_gen_toks: 5", "max_gen_toks: 5000"))
    with pytest.raises(DemurError, match="This task lets an answer have 5000 tokens, which"):
        carry_out(plan_of(tasks, "tiny_answers"), model, tmp_path / "out")
