"""What prompts cost along whole answers to harmless queries: words, length and language."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
from scipy.stats import t

from demur import ChatModel, Comparison, Condition, DemurError, SafetyPrompt, check, evaluate
from demur.chat.engine import SamplingSettings
from demur.evaluation.answerers.model import ModelAnswerer
from demur.evaluation.cost import MOST_ANSWERS, LikeliestAnswers
from demur.evaluation.costs import ANSWER_TOKENS, AnswerCost, Cost
from demur.evaluation.drift import (
    counted_answers,
    is_other_language,
    length_of,
    other_language_of,
)
from demur.judges import DefaultRefusalJudge
from demur.records import Conversation, JudgedResponse, read_record, write_record
from tests.tiny import save_tiny_model

ANSWERS = "likeliest answers"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "basic.txt").write_text("w1 w2 w3 w4 w5 .")
    rows = (f"w7 w{row % 60} ?,w8 w{row % 60} w{row // 60} ?" for row in range(30))
    (tmp_path / "q.csv").write_text("bad,good\n" + "\n".join(rows))
    return {
        "prompts": ["none", str(tmp_path / "basic.txt")],
        "harmless": f"{tmp_path}/q.csv:good",
        "tokens": 3,
        "output": tmp_path / "out",
    }


def chosen_queries() -> list[str]:
    every = [f"w8 w{row} w0 ?" for row in range(30)]
    return [every[place * 30 // MOST_ANSWERS] for place in range(MOST_ANSWERS)]


def log_probabilities(
    model: ChatModel, query: str, condition: Condition, answer: tuple[int, ...]
) -> torch.Tensor:
    """The next-token distributions along an answer, by one plain pass over the whole text."""
    ids = [*model.conversation(query, condition).token_ids, *answer]
    with torch.no_grad():
        logits = model.engine.model(input_ids=torch.tensor([ids])).logits[0]
    found: torch.Tensor = logits[len(ids) - len(answer) - 1 : -1].double().log_softmax(-1)
    return found


def test_the_cost_along_answers_is_the_divergence_of_every_token(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    none, basic = evaluate(model, **arguments).costs
    queries = chosen_queries()
    settings = SamplingSettings(samples=1, most_tokens=ANSWER_TOKENS, temperature=0)
    read = model.read_and_sample(queries, Condition(), settings)
    prompt = Condition(SafetyPrompt("basic.txt", "w1 w2 w3 w4 w5 ."))
    divergences, same, tokens = [], [], 0
    for query, (sample,) in zip(queries, read.samples, strict=True):
        if not sample.text.strip() or DefaultRefusalJudge().refuses(sample.text):
            continue
        answer = model.target_ids(sample.text)[:ANSWER_TOKENS]
        q = log_probabilities(model, query, Condition(), answer)
        p = log_probabilities(model, query, prompt, answer)
        divergences.append(float((q.exp() * (q - p)).sum(-1).mean()))
        same.append(float((q.argmax(-1) == p.argmax(-1)).double().mean()))
        tokens += len(answer)
    assert len(divergences) > 10
    assert basic.answers is not None
    assert (basic.answers.queries, basic.answers.tokens) == (len(divergences), tokens)
    assert basic.answers.divergence == pytest.approx(fmean(divergences), rel=1e-3)
    assert basic.answers.agreement.value == pytest.approx(fmean(same), abs=1e-6)
    assert 0 < basic.answers.agreement.value < 1
    interval = basic.answers.interval
    assert interval is not None
    assert interval.low < basic.answers.divergence < interval.high
    # Student's interval over queries of shares that each count many tokens.
    spread = float(t.ppf(0.975, len(same) - 1)) * stdev(same) / math.sqrt(len(same))
    wanted = min(1.0, fmean(same) + spread)
    assert basic.answers.agreement.interval.high == pytest.approx(wanted, rel=1e-3)
    assert none.answers is not None
    assert (none.answers.divergence, none.answers.agreement.value, none.answers.tokens) == (0, 1, 0)
    assert none.answers.agreement.interval.low == 1


def test_the_cost_along_answers_is_the_same_without_no_prompt_and_for_embeddings(
    model: ChatModel, arguments: dict[str, Any], tmp_path: Path
) -> None:
    _, basic = evaluate(model, **arguments).costs
    prompt = SafetyPrompt("basic.txt", "w1 w2 w3 w4 w5 .")
    rows = SafetyPrompt("rows", prompt.text, model.prompt_embeddings(prompt))
    alone = evaluate(model, **(arguments | {"prompts": [prompt, rows], "output": tmp_path / "o"}))
    text, trained = alone.costs
    assert basic.answers is not None
    assert text.answers == basic.answers
    assert trained.answers is not None
    assert trained.answers.divergence == pytest.approx(basic.answers.divergence, rel=1e-3)
    assert text.length is not None
    assert text.length.change is None
    assert basic.length is not None
    assert basic.length.change is not None


def test_refusals_and_silence_are_no_answers_to_read(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(_self: object, queries: Sequence[str], *_rest: object) -> list[str]:
        some = ["I'm sorry, but I cannot help with that.", "  ", "w1 w2 w3", f"{'w4 ' * 80}"]
        return (some * len(queries))[: len(queries)]

    monkeypatch.setattr(ModelAnswerer, "likeliest_answers", answers)
    _, basic = evaluate(model, **arguments).costs
    assert basic.answers is not None
    assert basic.answers.queries == 12
    assert basic.answers.tokens == 6 * 3 + 6 * ANSWER_TOKENS


def test_a_model_that_answers_nothing_has_no_cost_along_answers(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelAnswerer, "likeliest_answers", lambda _, queries, *__: [""] * 25)
    _, basic = evaluate(model, **arguments).costs
    assert basic.answers is None
    assert basic.divergence > 0
    first = Comparison.load(arguments["output"])
    result = check(first, ["answer-kl(harmless)<=50", "same-word(harmless)>=0%"])
    assert [one.status for one in result.checks] == ["undecided", "undecided"]
    assert result.checks[0].found == "no answers were read"


def test_work_that_goes_on_uses_the_answers_that_are_kept(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(model, **arguments)
    (first.folder / "results.json").unlink()
    for file in (first.folder / "costs").iterdir():
        if not file.name.startswith("answers"):
            file.unlink()
    monkeypatch.setattr(ChatModel, "read_and_sample", None)
    assert evaluate(model, **arguments) == first


@pytest.mark.parametrize("texts", [(), ("w1",) * MOST_ANSWERS])
def test_answers_to_other_queries_are_damage(
    model: ChatModel, arguments: dict[str, Any], texts: tuple[str, ...]
) -> None:
    first = evaluate(model, **arguments)
    (file,) = (first.folder / "costs").glob("answers*")
    kept = read_record(file, LikeliestAnswers, ANSWERS)
    queries = kept.queries if not texts else kept.queries[::-1]
    write_record(file, replace(kept, queries=queries, texts=texts), ANSWERS)
    (first.folder / "results.json").unlink()
    with pytest.raises(DemurError, match=f"{file.name} is damaged: delete it"):
        evaluate(model, **arguments)
    file.unlink()
    assert evaluate(model, **arguments).costs == first.costs


def response(
    query: str, text: str, *, refused: bool = False, end: str = "stop", label: str = "harmless"
) -> JudgedResponse:
    return JudgedResponse("p", "c", "s", label, None, query, text, refused, end)  # type: ignore[arg-type]


def words(text: str) -> tuple[int, ...]:
    return tuple(range(len(text.split())))


def test_the_length_is_that_of_answers_and_its_change_is_paired() -> None:
    before = counted_answers(
        [
            response("a", "one two three four"),
            response("a", "one two", end="length"),
            response("b", "one two three four five"),
            response("c", "I cannot.", refused=True),
        ],
        words,
    )
    after = counted_answers(
        [
            response("a", "one"),
            response("b", "one two three", end="settled"),
            response("b", " ", end="stop"),
            response("c", "one two three four five six seven"),
            response("d", "one two", label="harmful"),
        ],
        words,
    )
    length = length_of(after, before)
    assert length is not None
    assert (length.queries, length.answers, length.cut) == (3, 3, 1)
    assert length.tokens == pytest.approx((1 + 3 + 7) / 3)
    assert length.change == pytest.approx(((1 - 3) + (3 - 5)) / 2)  # of a and b alone
    assert length.interval is not None
    assert (length.interval.low, length.interval.high) == (-2, -2)
    assert length.in_words == (
        "answers have 4 tokens, 2 fewer than without a prompt (1 of 3 were cut)"
    )
    assert str(length) == "4 (-2)"
    assert str(replace(length, change=-0.4)) == "4 (+0)"  # no minus before what rounds to 0
    bare = length_of(before, None)
    assert bare is not None
    assert (bare.change, str(bare)) == (None, "4")
    assert length_of({}, before) is None


ENGLISH = "How do I bake a good loaf of bread at home?"
FRENCH = "Comment faire un bon pain à la maison avec de la farine ?"
CHINESE = "你好,我应该怎样在家里烤出一个好吃的面包呢?"
RUSSIAN = "Как испечь хороший хлеб дома без печи?"


@pytest.mark.parametrize(
    ("query", "answer", "expected"),
    [
        (ENGLISH, "You should mix the flour with water and let it rest for an hour.", False),
        (ENGLISH, "Vous devez mélanger la farine avec de l'eau et laisser reposer la pâte.", True),
        (FRENCH, "Vous devez mélanger la farine avec de l'eau et laisser reposer la pâte.", False),
        (FRENCH, "You should mix the flour with water and let it rest for an hour.", True),
        (CHINESE, "首先把面粉和水混合在一起,然后让它休息一个小时。", False),
        (CHINESE, "You should mix the flour with water and let it rest for an hour.", True),
        (RUSSIAN, "Сначала нужно смешать муку и воду, потом дать тесту постоять час.", False),
        (RUSSIAN, "首先把面粉和水混合在一起,然后让它休息一个小时。", True),
        # Nothing tells the language of these answers.
        (FRENCH, "42", None),
        (FRENCH, "Paris, Toulouse, Marseille", None),
        (ENGLISH, "12:30", None),
        ("?", "You should mix the flour with water and let it rest for an hour.", None),
    ],
)
def test_an_answer_in_another_language_is_told(
    query: str, answer: str, expected: bool | None
) -> None:
    assert is_other_language(query, answer) is expected
    history = Conversation(query, ((ENGLISH, "Like this: knead the dough."),))
    assert is_other_language(history, answer) is expected


def test_the_rate_of_other_languages_is_over_queries() -> None:
    answers = counted_answers(
        [
            response(ENGLISH, "You should mix the flour with water and let it rest."),
            response(ENGLISH, "Vous devez mélanger la farine avec de l'eau."),
            response(FRENCH, "You should mix the flour with water and let it rest."),
            response(RUSSIAN, "42"),
        ],
        words,
    )
    found = other_language_of(answers)
    assert found is not None
    assert (found.count, found.queries) == (1.5, 2)
    assert other_language_of(counted_answers([response(ENGLISH, "42")], words)) is None


def test_costs_say_what_they_mean() -> None:
    cost = Cost.of("long", "x", "held-out", [0.25] * 4, [True, False, False, False])
    assert len(cost.all_in_words) == 1
    answers = AnswerCost.of(80, [0.1, 0.2, -1e-9, 0.1], [1.0, 0.9, 0.8, 0.9])
    assert answers.divergence == pytest.approx(0.1)
    assert answers.in_words == (
        "the likeliest next word is the same at 90 % of 80 places in harmless answers "
        "(KL 0.10 nats a word)"
    )
    assert replace(cost, answers=answers).all_in_words == (cost.in_words, answers.in_words)
