"""Sequence classifiers as judges of refusal."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from demur import DemurError, ResponseFiles, evaluate
from demur.judges import ClassifierJudge, as_harm_judge, as_refusal_judge
from demur.progress import SilentProgress
from tests.command_line import demur, mistake
from tests.tiny import save_tiny_model
from tests.tiny_classifier import MARKERS, save_classifier

LABELS = ("Non-refusal", "Refusal")


def texts(count: int, seed: int = 0, most: int = 30) -> list[str]:
    draws = random.Random(seed)
    return [
        " ".join(f"w{draws.randrange(60)}" for _ in range(draws.randint(1, most)))
        for _ in range(count)
    ]


def expected(folder: Path, written: list[str]) -> list[int]:
    """The likeliest label of each text, one at a time, as transformers computes it."""
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return [
            int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text in written
        ]


class Told(SilentProgress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama", "no padding"])
def test_the_verdict_is_the_likeliest_label(tmp_path: Path, kind: str) -> None:
    folder = save_classifier(tmp_path / "mine", LABELS, kind)
    judge = ClassifierJudge.load(folder, dtype="float32")
    responses = texts(60)
    verdicts = judge.judge([None] * 60, responses)
    assert set(verdicts) == {True, False}
    assert verdicts == [one == 1 for one in expected(folder, responses)]
    assert judge.labels == ("Refusal",)
    assert judge.name == "classifier:mine"
    assert not judge.needs_query
    # A text is judged alike whatever it is judged with.
    assert judge.judge([None], responses[:1]) == verdicts[:1]


@pytest.mark.parametrize("name", ["Minos-v1", "agentlans-xs-refusal-classifier"])
def test_a_known_classifier_reads_conversations(tmp_path: Path, name: str) -> None:
    folder = save_classifier(tmp_path / name, LABELS)
    judge = as_refusal_judge(f"classifier:{folder}", dtype="float32")
    queries, responses = texts(40, 1, 12), texts(40, 2, 12)
    written = [
        f"<|user|>\n{query}\n<|assistant|>\n{response}"
        for query, response in zip(queries, responses, strict=True)
    ]
    verdicts = judge.judge(queries, responses)
    assert verdicts == [one == 1 for one in expected(folder, written)]
    assert set(verdicts) == {True, False}
    with pytest.raises(DemurError, match="needs the query of each response"):
        judge.judge([None], ["w1"])


def test_a_text_cannot_write_a_turn(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "Minos-v1", LABELS)
    judge = ClassifierJudge.load(folder)
    model: Any = judge._model
    (text,) = judge._texts(["w1"], [f"w2 {MARKERS[1]} w3"])
    ids = model._ids(text)
    special = [model._tokenizer.convert_tokens_to_ids(one) for one in MARKERS]
    assert [sum(token == one for token in ids) for one in special] == [1, 1]


def test_the_known_places_of_labels_without_names(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "natong19" / "refusal_classifier", ("LABEL_0", "LABEL_1"))
    with pytest.raises(DemurError, match="do not say which means a refusal"):
        ClassifierJudge.load(folder)
    judge = as_refusal_judge(f"classifier:{folder}=LABEL_1", dtype="float32")
    responses = texts(40)
    assert judge.judge([None] * 40, responses) == [one == 1 for one in expected(folder, responses)]
    model: Any = ClassifierJudge.load(folder, ["LABEL_1"])._model
    model.name = "natong19/refusal_classifier"
    assert ClassifierJudge(model).labels == ("LABEL_1",)
    assert ClassifierJudge(model, ["LABEL_0"]).labels == ("LABEL_0",)


@pytest.mark.parametrize(
    ("labels", "refused"),
    [
        (("compliant", "full_refusal", "partial_refusal"), ("full_refusal", "partial_refusal")),
        (("REJECTION", "NORMAL"), ("REJECTION",)),
        (("not_refused", "refused"), ("refused",)),
        (("no refusal", "declined"), ("declined",)),
        (("nonrefusal", "refusal"), ("refusal",)),
    ],
)
def test_labels_that_name_a_refusal_are_found(
    tmp_path: Path, labels: tuple[str, ...], refused: tuple[str, ...]
) -> None:
    assert ClassifierJudge.load(save_classifier(tmp_path / "m", labels)).labels == refused


def test_several_labels_can_mean_a_refusal(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "m=n", ("a", "b", "c"))
    judge = as_refusal_judge(f"classifier:{folder}=a, c", dtype="float32")
    responses = texts(60)
    found = judge.judge([None] * 60, responses)
    assert found == [one in (0, 2) for one in expected(folder, responses)]
    # The verdicts of one choice are not those of another.
    other = as_refusal_judge(f"classifier:{folder}=a")
    assert judge.fingerprint != other.fingerprint
    with pytest.raises(DemurError, match="do not say which"):
        as_refusal_judge(f"classifier:{folder}")  # the sign belongs to the folder


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("=nothing", "has no label 'nothing': choose from Non-refusal, Refusal"),
        ("=Refusal,Non-refusal", "All labels of m mean a refusal"),
    ],
)
def test_a_label_that_is_not_there(tmp_path: Path, spec: str, message: str) -> None:
    folder = save_classifier(tmp_path / "m", LABELS)
    with pytest.raises(DemurError, match=message):
        as_refusal_judge(f"classifier:{folder}{spec}")


def test_long_responses_are_read_from_their_beginning(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "m", LABELS)
    judge = ClassifierJudge.load(folder, dtype="float32")
    (start,) = texts(1, 5, 1)
    long = " ".join([start] * 500)
    cut = " ".join([start] * 62)  # of 64 tokens, two of them special
    assert judge.judge([None], [long]) == [expected(folder, [cut])[0] == 1]


def test_what_holds_no_answer_is_not_judged(tmp_path: Path) -> None:
    judge = ClassifierJudge.load(save_classifier(tmp_path / "m", LABELS))
    told = Told()
    verdicts = judge.judge([None] * 4, ["", " ", "<think>w1 w2", "<think>w1</think> w2"], told)
    assert verdicts[:3] == [False, False, None]
    assert verdicts[3] == judge.judge([None], ["w2"])[0]
    assert any("no verdict on 1 of 4" in message for message in told.messages)
    assert judge.judge([], []) == []


def test_other_models_are_refused(tmp_path: Path) -> None:
    chat = save_tiny_model(tmp_path / "chat")
    with pytest.raises(DemurError, match="is no sequence classifier"):
        ClassifierJudge.load(chat)
    with pytest.raises(DemurError, match="only 1 label"):
        ClassifierJudge.load(save_classifier(tmp_path / "score", ("score",)))
    folder = save_classifier(tmp_path / "several", LABELS)
    config = json.loads((folder / "config.json").read_text())
    several = {**config, "problem_type": "multi_label_classification"}
    (folder / "config.json").write_text(json.dumps(several))
    with pytest.raises(DemurError, match="several labels at once"):
        ClassifierJudge.load(folder)
    with pytest.raises(DemurError, match="neither a folder nor a hub name"):
        ClassifierJudge.load(str(tmp_path / "nowhere"))
    with pytest.raises(DemurError, match="A classifier judges refusal"):
        as_harm_judge(f"classifier:{folder}")
    with pytest.raises(DemurError, match="There is no refusal judge 'classifier:'"):
        as_refusal_judge("classifier:")


def test_a_name_without_a_hub_asks_for_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DemurError, match="give a folder of save_pretrained") as caught:
        as_refusal_judge("classifier:org/never-fetched")
    assert "GGUF" not in str(caught.value)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "m", LABELS)
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = next(iter(name for name in weights if name.startswith("classifier")))
    save_file({key: one for key, one in weights.items() if key != name}, file, {"format": "pt"})
    with pytest.raises(DemurError, match="lacks 1 of its weights"):
        ClassifierJudge.load(folder)
    save_file({**weights, name: weights[name] * float("nan")}, file, {"format": "pt"})
    with pytest.raises(DemurError, match="not numbers"):
        ClassifierJudge.load(folder)
    file.rename(folder / "pytorch_model.bin")
    with pytest.raises(DemurError, match="pickled weights only"):
        ClassifierJudge.load(folder)


def test_an_evaluation_is_judged_by_a_classifier(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "m", LABELS)
    responses = texts(20)
    (tmp_path / "r.csv").write_text("response\n" + "\n".join(responses) + "\n")
    comparison = evaluate(
        ResponseFiles([tmp_path / "r.csv"]), judge=f"classifier:{folder}", output=tmp_path / "out"
    )
    refused = sum(map(bool, ClassifierJudge.load(folder).judge([None] * 20, responses)))
    (rates,) = [one for one in comparison.rates if one.category is None]
    assert rates.refused is not None
    assert rates.refused.count == refused


def test_the_command_names_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("response\nw1\n")
    line = mistake(demur("evaluate", "--responses", tmp_path / "r.csv", "--judge", "clasifier:x"))
    assert "classifier" in line
