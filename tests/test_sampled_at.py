"""A model whose responses a vLLM server samples: what is sent, what is refused, and whole runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("openai", reason="openai is not installed: pip install 'demur[endpoint]'")

from demur import (
    ChatModel,
    Comparison,
    DemurError,
    FinishedStudy,
    Robustness,
    Run,
    SafetyPrompt,
    evaluate,
    optimize,
    sampled_at,
)
from demur.chat.engine import SamplingSettings
from demur.chat.served import SamplingServer, ServedModel, reached
from demur.evaluation.answerers import model as model_answerer
from demur.evaluation.measuring import measure
from demur.evaluation.protocol import Protocol
from demur.judges import PaperRefusalJudge
from demur.progress import SilentProgress
from demur.prompts import Condition
from demur.queries import QuerySet, labelled
from demur.records import MeasurementStore, ModelRecord
from demur.report.again import run_again
from demur.study.planning import plan_study
from demur.study.settings import read_study
from tests.command_line import demur, done, mistake
from tests.endpoint_server import Endpoint, Reply, running_server
from tests.sampling_server import NAME, sampling
from tests.telling import Telling
from tests.tiny import save_tiny_model, tiny_model
from tests.tiny_study import FILE, write_study

TINY = "llama, grouped attention"
TEXT = "w1 w2 w3 w4 w5 ."
HARMFUL = tuple(f"w{10 + row % 40} w7 w{row} ?" for row in range(20))
HARMLESS = tuple(f"w{10 + row % 40} w8 w{row} ?" for row in range(20))
SMALL: dict[str, Any] = {
    "method": "dro",
    "judge": "paper",
    "preset": "quick",
    "harmful": HARMFUL,
    "harmless": HARMLESS,
    "held_out_harmful": [f"{one[:-1]}w4 ?" for one in HARMFUL[:10]],
    "held_out_harmless": [f"{one[:-1]}w4 ?" for one in HARMLESS[:10]],
    "basic_prompt": SafetyPrompt("calm", TEXT),
    "samples": 4,
    "tokens": 4,
    "epochs": 2,
    "batch": 8,
    "learning_rate": 0.05,
    "most_anchors": 20,
    "most_held_out": 10,
    "third_turn": 0,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> ChatModel:
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def server() -> Iterator[Endpoint]:
    with running_server(sampling(tiny_model(TINY)), (NAME,)) as state:
        yield state


def at(server: Endpoint, model: ChatModel) -> ServedModel:
    """The model with its responses sampled at a server, as loading it makes it."""
    return sampled_at(model, server.url, SilentProgress())


def trained(model: ChatModel) -> SafetyPrompt:
    rows = model.prompt_embeddings(SafetyPrompt("calm", TEXT))
    torch.manual_seed(3)
    return SafetyPrompt("trained", TEXT, rows + 0.5 * torch.randn(rows.shape))


def texts(run: Run) -> list[list[list[str]]]:
    return [
        [[one.response for one in several] for several in measured.responses]
        for measured in run.held_out()
    ]


def test_loading_says_where_responses_are_sampled(server: Endpoint, folder: Path) -> None:
    told = Telling()
    model = sampled_at(ChatModel.load(folder, dtype="float32"), server.url, told)
    assert isinstance(model, ServedModel)
    assert f"{server.url}/ samples all responses. It has the weights of" in told.messages[-1]
    assert model.record.sampler == "vllm"
    assert model.record.fingerprint != replace(model.record, sampler=None).fingerprint
    assert {request["model"] for request in server.requests} == {NAME}


@pytest.mark.parametrize("prompt", ["none", "text", "trained"])
def test_greedy_responses_are_those_of_the_model(
    model: ChatModel, server: Endpoint, prompt: str
) -> None:
    prompts = {"none": None, "text": SafetyPrompt("calm", TEXT), "trained": trained(model)}
    condition, served = Condition(prompts[prompt], "w6 w7 ."), at(server, model)
    server.requests.clear()
    queries = [*HARMFUL[:5], *HARMLESS[:5]]
    judge = PaperRefusalJudge()
    for options in (
        {"samples": 2, "most_tokens": 8},
        {"samples": 1, "most_tokens": 9, "least_tokens": 6},
    ):
        settings = SamplingSettings(**options, temperature=0)
        for more in (
            {},
            {"limits": [3, 8] * 5},
            {"settled": judge.is_settled},
            {"opening": "w1 w2"},
        ):
            wanted = model.read_and_sample(queries, condition, settings, **more)
            found = served.read_and_sample(queries, condition, settings, **more)
            assert found.samples == wanted.samples
            assert torch.equal(found.representations, wanted.representations)
    assert {"prompt_embeds" in one for one in server.requests} == {prompt == "trained"}


def test_responses_are_drawn_with_seeds_and_all_options(model: ChatModel, server: Endpoint) -> None:
    served = at(server, model)
    server.requests.clear()
    settings = SamplingSettings(samples=40, most_tokens=6, temperature=1.5, top_k=7, top_p=0.8)
    found = served.read_and_sample(HARMFUL[:2], Condition(), settings, [6, 3]).samples
    assert [len(several) for several in found] == [40, 40]
    assert len({one.text for one in found[0]}) > 5
    assert max(one.tokens for one in found[1]) == 3
    assert sorted(one["n"] for one in server.requests) == [8, 8, 32, 32]
    assert len({one["seed"] for one in server.requests}) == 4
    sent = {(one["temperature"], one["top_k"], one["top_p"]) for one in server.requests}
    assert sent == {(1.5, 7, 0.8)}
    again = served.read_and_sample(HARMFUL[:2], Condition(), settings, [6, 3]).samples
    assert again == found
    other = replace(settings, seed=1)
    assert served.read_and_sample(HARMFUL[:2], Condition(), other, [6, 3]).samples != found


def test_responses_are_cut_and_counted_as_here(
    model: ChatModel, server: Endpoint, tmp_path: Path
) -> None:
    harmful = QuerySet("bad", "harmful", HARMFUL[:6])
    queries = labelled("some", harmful, QuerySet("good", "harmless", HARMLESS[:6]))
    sampled = SamplingSettings(samples=3, most_tokens=8, temperature=0)
    protocol = Protocol(sampled, 8, 5, kept=2, cut_unfinished=True)
    found = [
        measure(
            one,
            queries,
            Condition(trained(model)),
            protocol,
            PaperRefusalJudge(),
            MeasurementStore(tmp_path / name),
            progress=SilentProgress(),
        )
        for name, one in (("here", model), ("there", at(server, model)))
    ]
    assert found[0].responses == found[1].responses
    assert {len(several) for several in found[1].responses} == {2}
    assert found[0].key != found[1].key


def test_a_run_is_the_same_with_the_likeliest_tokens(
    model: ChatModel, server: Endpoint, tmp_path: Path
) -> None:
    greedy = {**SMALL, "temperature": 0}
    here = optimize(model, **greedy, output=tmp_path / "here")
    there = optimize(at(server, model), **greedy, output=tmp_path / "there")
    assert texts(there) == texts(here)
    assert there.comparison.rates == here.comparison.rates
    assert there.history == here.history
    assert here.settings.model.sampler is None
    assert there.settings.model.sampler == "vllm"
    assert there.settings.fingerprint != here.settings.fingerprint
    again = run_again(there.settings)
    assert f"--sample-at {server.url}/" in again.command
    assert f"{server.url}/" in again.trusted
    # A run is never mixed from both.
    with pytest.raises(DemurError, match=r"another model\.sampler \(nothing there, vllm now\)"):
        optimize(at(server, model), **greedy, output=tmp_path / "here")
    with pytest.raises(DemurError, match=r"another model\.sampler \(vllm there, nothing now\)"):
        optimize(model, **greedy, output=tmp_path / "there")


def test_a_server_that_is_killed_ends_the_run_which_goes_on(
    model: ChatModel, server: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.endpoint.connection.pause", lambda *_: 0.0)
    monkeypatch.setattr(model_answerer, "RESPONSES_AT_ONCE", 20)
    whole = optimize(at(server, model), **SMALL, output=tmp_path / "whole")
    asked = len(server.requests)
    served = at(server, model)
    server.requests.clear()
    answers = server.reply
    last = asked * 2 // 3

    def killed(body: dict[str, Any]) -> Reply:
        if len(server.requests) > last:
            raise ConnectionResetError
        return answers(body)

    server.reply = killed
    with pytest.raises(DemurError, match=r"breaks off its answer.*run the same again to go on"):
        optimize(served, **SMALL, output=tmp_path / "run")
    server.reply = answers
    server.requests.clear()
    again = optimize(served, **SMALL, output=tmp_path / "run")
    assert 0 < len(server.requests) < asked * 2 // 3
    assert texts(again) == texts(whole)
    assert again.comparison.rates == whole.comparison.rates
    server.requests.clear()
    assert optimize(served, **SMALL, output=tmp_path / "run").results == again.results
    assert server.requests == []


def test_an_evaluation_samples_there_as_well(
    model: ChatModel, server: Endpoint, tmp_path: Path
) -> None:
    served = at(server, model)
    server.requests.clear()
    found = evaluate(
        served,
        prompts=[None, trained(model)],
        harmful=HARMFUL,
        harmless=HARMLESS,
        judge="paper",
        tokens=4,
        output=tmp_path / "out",
    )
    assert sum("prompt_embeds" in one for one in server.requests) == 40
    assert found.settings is not None
    assert found.settings.answerer == served.record


def test_another_models_weights_are_refused(model: ChatModel) -> None:
    with (
        running_server(sampling(tiny_model(TINY, seed=1)), (NAME,)) as other,
        pytest.raises(DemurError, match=r"does not have the weights of tiny.*Serve the same model"),
    ):
        at(other, model)


def test_a_larger_vocabulary_is_refused(model: ChatModel, server: Endpoint) -> None:
    answers = server.reply

    def foreign(body: dict[str, Any]) -> Reply:
        status, found = answers(body)[:2]
        found["choices"][0]["token_ids"][0] = 70_000
        return status, found

    server.reply = foreign
    with pytest.raises(DemurError, match="does not have the weights of tiny"):
        at(server, model)


def test_a_server_that_takes_no_embeddings_is_refused(model: ChatModel) -> None:
    with (
        running_server(sampling(tiny_model(TINY), takes_rows=False), (NAME,)) as other,
        pytest.raises(
            DemurError, match=r"does not take a trained prompt.*start it with --enable-p"
        ),
    ):
        at(other, model)


@pytest.mark.parametrize(
    "option", ["min_tokens", "seed", "stop_token_ids", "temperature", "top_k", "top_p"]
)
def test_a_server_that_leaves_an_option_out_is_refused(model: ChatModel, option: str) -> None:
    # Without a temperature, the likeliest tokens are drawn as well.
    named = "top_k, top_p" if option == "temperature" else option
    with (
        running_server(sampling(tiny_model(TINY), ignored=[option]), (NAME,)) as other,
        pytest.raises(DemurError, match=rf"does not keep to .*{named}.*give a vLLM server"),
    ):
        at(other, model)


def test_a_server_without_tokens_or_models_is_refused(model: ChatModel, server: Endpoint) -> None:
    def plain(body: dict[str, Any]) -> Reply:
        return 200, {"choices": [{"index": 0, "text": "w1", "finish_reason": "length"}]}

    server.reply = plain
    with pytest.raises(DemurError, match="does not say which tokens its answers have: give a vLLM"):
        at(server, model)
    server.models = ()
    with pytest.raises(DemurError, match="lists no models: check --sample-at"):
        reached(server.url, SilentProgress())


def test_a_context_that_is_too_short_there_is_told_early(
    model: ChatModel, server: Endpoint, tmp_path: Path
) -> None:
    short = SamplingServer(at(server, model).server.client, 16)
    served = ServedModel(model, short)
    server.requests.clear()
    with pytest.raises(DemurError, match=r"more than the 16 of .*--max-model-len \d+ or more"):
        optimize(served, **SMALL, output=tmp_path / "run")
    assert server.requests == []
    assert not (tmp_path / "run").exists()


def test_processes_that_share_a_model_sample_it_themselves(
    monkeypatch: pytest.MonkeyPatch, model: ChatModel
) -> None:
    for name, value in (("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(DemurError, match=r"Several processes share the model.*leave --sample-at"):
        sampled_at(model, "http://127.0.0.1:9/v1")


def test_a_server_that_is_not_there_is_told_in_one_line(folder: Path, tmp_path: Path) -> None:
    away = ["--sample-at", "http://127.0.0.1:9/v1", "--output", tmp_path / "run"]
    line = mistake(demur("optimize", folder, *away))
    assert "http://127.0.0.1:9/v1/ cannot be reached" in line
    assert not (tmp_path / "run").exists()


def test_a_model_of_a_study_is_sampled_at_its_server(server: Endpoint, tmp_path: Path) -> None:
    short = FILE.replace("seeds = [0, 1]", "").partition("[methods.steep]")[0]
    text = short.replace("[load]", f'[load]\nsample_at = "{server.url}"')
    file = write_study(tmp_path, text=text)
    done(demur("study", file, "--output", tmp_path / "out"))
    assert any("prompt_embeds" in one for one in server.requests)
    finished = FinishedStudy.load(tmp_path / "out")
    assert len(finished.done) == 3
    for cell in finished.done:
        place = tmp_path / "out" / cell.folder
        if cell.kind == "run":
            assert Run.load(place).settings.model.sampler == "vllm"
        else:
            settings = Comparison.load(place).settings
            assert settings is not None
            assert isinstance(settings.answerer, ModelRecord)
            assert settings.answerer.sampler == "vllm"
    moved, here = tmp_path / "moved.toml", tmp_path / "here.toml"
    moved.write_text(file.read_text().replace(server.url, "http://elsewhere/v1"))
    here.write_text(short.format(folder=tmp_path))
    contents = [
        [cell.content for cell in plan_study(read_study(one), tmp_path / "free").record.cells]
        for one in (file, moved, here)
    ]
    assert contents[0] == contents[1]  # the server may move
    assert not {*contents[0]} & {*contents[2]}


def test_a_model_of_a_study_has_one_server(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text('[models.m]\nendpoint = "http://a/v1"\nsample_at = "http://b/v1"\n')
    line = mistake(demur("study", file))
    assert "The model 'm'" in line
    assert "give one of them" in line


def test_attacked_prompts_are_sampled_there_as_well(
    server: Endpoint, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "calm.txt").write_text(TEXT)
    (tmp_path / "q.txt").write_text("\n".join(HARMFUL[:10]))
    options = ["--model", folder, "--dtype", "float32", "--prompt", tmp_path / "calm.txt"]
    options += ["--harmful", tmp_path / "q.txt", "--tokens", "4", "--attack", "prefill"]
    options += ["--sample-at", server.url, "--output", tmp_path / "attacked"]
    server.requests.clear()
    assert "prefill" in done(demur("attack", *options))
    assert len(server.requests) >= 20  # ten queries, with the attack and without it
    record = Robustness.load(tmp_path / "attacked").settings
    assert isinstance(record.answerer, ModelRecord)
    assert record.answerer.sampler == "vllm"
