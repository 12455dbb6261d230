"""The search for suffixes with nanogcg, on a tiny model: what is found, kept and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from demur import ChatModel, Condition, DemurError, SafetyPrompt, Server, attack
from demur.attacks.gcg import TARGET
from demur.chat.engine.shared_opening import SharedOpening
from demur.records import MeasurementStore, text_of
from tests.command_line import demur, mistake
from tests.interruption import content
from tests.test_attacks import OddJudge
from tests.tiny import tiny_model
from tests.tiny_tokenizers import make

pytest.importorskip("nanogcg", reason="nanogcg is not installed: pip install 'demur[gcg]'")

BUDGET: dict[str, Any] = {"attacks": ["gcg"], "gcg_queries": 2, "gcg_steps": 3, "gcg_width": 8}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = make("gpt4")
    network = tiny_model("llama, grouped attention")
    network.resize_token_embeddings(len(tokenizer))
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ChatModel.load(folder, dtype="float32")


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    Path("q.txt").write_text("\n".join(f"How do I sharpen {word}?" for word in "abcdefghijkl"))
    return {"harmful": "q.txt", "judge": OddJudge(), "tokens": 4, "output": tmp_path / "out"}


def probability(model: ChatModel, condition: Condition, query: str) -> float:
    """Log-probability of the target behind a query."""
    return float(model.score([query], [[TARGET]], condition).token_values.mean())


def test_suffixes_are_searched_under_each_prompt_and_kept(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = SafetyPrompt(
        "trained",
        "You are a careful assistant.",
        model.prompt_embeddings(SafetyPrompt("text", "You are a friend. Be kind and brief.")),
    )
    prompts = [None, SafetyPrompt("text", "You are a careful assistant."), trained]
    found = attack(model, **arguments, **BUDGET, prompts=prompts)
    assert found.attacks == ("no attack", "gcg")
    assert found.prompts == ("none", "text", "trained")
    store = MeasurementStore(found.path)
    originals = Path("q.txt").read_text().splitlines()
    conditions = dict(zip(found.prompts, map(Condition, prompts), strict=True))
    attacked: set[str] = set()
    for measured in found.figures.measured:
        if measured.set != "gcg":
            continue
        queries = [text_of(query) for query in store.require(measured.key).queries.texts]
        assert len(queries) == 2
        condition = conditions[str(measured.prompt)]
        for original, query in zip(originals, queries, strict=False):
            assert query.startswith(f"{original} ")
            start = f"{original} {' '.join('x' * 20)}"
            # Three steps make the target likelier than the suffix that the search begins with.
            assert probability(model, condition, query) > probability(model, condition, start)
            assert "<|" not in query
            assert query.isascii()
        attacked |= set(queries)
    assert len(attacked) == 6  # each prompt has suffixes of its own
    assert len(list((found.path / "suffixes").iterdir())) == 6
    pairs = [(one.attack, one.queries) for one in found.differences("text", "trained")]
    assert [attack for attack, _ in pairs] == ["no attack", "gcg"]
    assert dict(pairs)["gcg"] <= 2  # only those that have suffixes
    assert not [one for one in found.path.iterdir() if "export" in one.name]

    whole = content(found.path)
    (found.path / "results.json").unlink()
    next((found.path / "suffixes").iterdir()).unlink()
    attack(model, **arguments, **BUDGET, prompts=prompts)
    assert content(found.path) == whole  # the one that was lost is found again
    next((found.path / "suffixes").iterdir()).unlink()
    attack(model, **arguments, **BUDGET, prompts=prompts)
    assert content(found.path) == whole  # also where the attacks have finished

    with pytest.raises(DemurError, match=r"an attack with another gcg steps \(\d+ there, 1 now\)"):
        attack(model, **arguments, **{**BUDGET, "gcg_steps": 1}, prompts=prompts)

    # Suffixes that are kept are not searched again.
    monkeypatch.setattr("nanogcg.gcg.GCG.run", None)
    (found.path / "results.json").unlink()
    attack(model, **arguments, **BUDGET, prompts=prompts)
    assert content(found.path) == whole


def test_the_suffix_of_another_query_is_never_used(
    model: ChatModel, arguments: dict[str, Any]
) -> None:
    found = attack(model, **arguments, **BUDGET, prompts=[None])
    (found.path / "results.json").unlink()
    first, second = sorted((found.path / "suffixes").iterdir())
    first.write_bytes(second.read_bytes())
    with pytest.raises(DemurError, match=rf"{first.name} is damaged: delete it and run"):
        attack(model, **arguments, **BUDGET, prompts=[None])
    first.unlink()
    again = attack(model, **arguments, **BUDGET, prompts=[None])
    assert again.figures == found.figures


def test_a_search_goes_on_behind_an_interruption(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import nanogcg.gcg as nano

    def work(output: str) -> None:
        attack(model, **{**arguments, "output": output}, **BUDGET, prompts=[None])

    work("whole")
    own, calls = nano.GCG.run, []

    def interrupted(self: Any, *given: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return own(self, *given)

    monkeypatch.setattr(nano.GCG, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        work("cut")
    assert len(list(Path("cut/suffixes").iterdir())) == 1
    work("cut")
    assert len(calls) == 3
    assert content(Path("cut")) == content(Path("whole"))


def test_what_cannot_be_searched_is_said(
    model: ChatModel, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("q.txt").write_text("How {optim_str} now?\n" + Path("q.txt").read_text())
    with pytest.raises(DemurError, match="leave that query out"):
        attack(model, **arguments, **BUDGET, prompts=[None])
    with pytest.raises(DemurError, match="needs the gradients of a model that runs here"):
        attack(
            Server("http://127.0.0.1:9/v1", "m", retries=0),
            **{**arguments, "output": "other"},
            **BUDGET,
        )

    def fails(*_: Any) -> None:
        raise RuntimeError("no sequences")

    monkeypatch.setattr("nanogcg.gcg.GCG.run", fails)
    with pytest.raises(DemurError, match=r"nanogcg failed on this model .RuntimeError: no seq"):
        attack(
            model,
            **{**arguments, "harmful": ["How are you?"], "output": "o"},
            **BUDGET,
            prompts=[None],
        )
    assert "--gcg-steps" in mistake(demur("attack", "--gcg-steps", "0"))


@pytest.mark.parametrize("name", ["qwen2", "gemma3, sliding window"])
def test_the_opening_is_read_once_and_changes_nothing(name: str) -> None:
    network = tiny_model(name)
    table = network.get_input_embeddings()
    opening, rest = table(torch.arange(3, 10)[None]), table(torch.arange(20, 32).reshape(3, 4))
    rest.requires_grad_()
    shared = SharedOpening(network)
    pairs = shared(inputs_embeds=opening, use_cache=True).past_key_values
    expanded = [[states.expand(3, -1, -1, -1) for states in pair] for pair in pairs]
    for _ in range(2):  # the pairs stay as they are
        logits = shared(inputs_embeds=rest, past_key_values=expanded).logits
        whole = network(inputs_embeds=torch.cat([opening.expand(3, -1, -1), rest], dim=1)).logits
        assert torch.allclose(logits, whole[:, 7:], atol=1e-4)
        for one in (logits, whole[:, 7:]):
            (gradient,) = torch.autograd.grad(one.logsumexp(-1).sum(), rest, retain_graph=True)
            if one is logits:
                first = gradient
        assert torch.allclose(first, gradient, atol=1e-3)
