"""One way of doing one thing, measured in a process of its own; `engine.py` compares them.

    python benchmarks/engine_ways.py '{"what": "step", "way": "demur", "model": ...}'

Prints one line of JSON: seconds of the fastest repetition, peak memory, and what else was asked.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from demur.chat import ChatModel, Condition
from demur.chat.engine import SamplingSettings
from demur.chat.hardware import available_memory
from demur.judges.paper import PaperRefusalJudge
from demur.prompts import SafetyPrompt
from engine_peak import matrix_peak, necessary_operations, timed
from engine_peers import sample_batched, step_batched
from engine_shapes import load
from engine_texts import prompt_of, queries, readout, span_of, whole

Result = dict[str, Any]

COPIES_OF_LOGITS = 12
"""In float32, while a loss over all positions is computed and differentiated."""

OPENINGS = ("I'm sorry, but I can't", "I cannot", "I apologize, but", "As an AI language model")


def demur_step(
    model: ChatModel, prompt: SafetyPrompt, texts: list[str]
) -> Callable[[], tuple[float, Tensor]]:
    """A training step through the engine: its loss and gradient."""
    rows, loss_of = model.prompt_embeddings(prompt), readout(model)
    return lambda: model.prompt_gradient(
        texts,
        Condition(prompt),
        rows,
        lambda read, _: loss_of(read.representations).sum() / len(texts),
    )


def step_demur(model: ChatModel, task: Result) -> Result:
    """A training step through the engine; also its loss and gradient."""
    prompt, texts = prompt_of(model, task["prompt"]), queries(task["queries"])
    step = demur_step(model, prompt, texts)
    loss, gradient = step()
    # In turn: what a processor can do changes from minute to minute on a shared machine.
    turns = [(matrix_peak(model), timed(step, 1)) for _ in range(task["repetitions"])]
    return {
        "seconds": min(seconds for _, seconds in turns),
        "loss": loss,
        "gradient": float(gradient.norm()),
        "operations": necessary_operations(model, texts, prompt),
        "matrix peak": max(peak for peak, _ in turns),
    }


def step_straightforward(model: ChatModel, task: Result) -> Result:
    """The same with whole conversations, all hidden states and all logits."""
    prompt, texts = prompt_of(model, task["prompt"]), queries(task["queries"])
    rows, loss_of = model.prompt_embeddings(prompt), readout(model)
    ids, lengths = whole(model, texts, prompt)
    start, end = span_of(model, prompt)
    network = model.engine.model
    table = network.get_input_embeddings()
    mask = torch.arange(ids.shape[1])[None] < lengths[:, None]

    def step() -> tuple[float, Tensor]:
        leaf = rows.clone().to(network.device, network.dtype).requires_grad_()
        embeddings = table(ids)
        opening = leaf[None].expand(len(texts), -1, -1)
        embeddings = torch.cat([embeddings[:, :start], opening, embeddings[:, end:]], dim=1)
        output = network(
            inputs_embeds=embeddings,
            attention_mask=mask.to(network.device),
            output_hidden_states=True,
            use_cache=False,
        )
        last = output.hidden_states[-1][torch.arange(len(texts)), lengths - 1]
        loss = loss_of(last.float()).mean()
        torch.autograd.backward(loss)
        assert leaf.grad is not None
        return float(loss), leaf.grad

    loss, gradient = step()
    seconds = timed(step, task["repetitions"])
    return {"seconds": seconds, "loss": loss, "gradient": float(gradient.float().norm())}


def step_peft(model: ChatModel, task: Result) -> Result:
    """A step of PEFT's prompt tuning with as many virtual tokens.

    The logits of a large vocabulary at all positions can be too many for the memory there is; then
    the queries go in parts whose gradients add up.
    """
    from peft import PromptTuningConfig, get_peft_model

    prompt, texts = prompt_of(model, task["prompt"]), queries(task["queries"])
    start, end = span_of(model, prompt)
    ids, lengths = whole(model, texts, prompt)
    ids = torch.cat([ids[:, :start], ids[:, end:]], dim=1)
    mask = (torch.arange(ids.shape[1])[None] < (lengths - (end - start))[:, None]).to(ids.device)
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=end - start)
    tuned = get_peft_model(model.engine.model, config)
    labels = torch.where(mask, ids, -100)
    positions = ids.shape[1] + end - start
    logits = (
        4 * COPIES_OF_LOGITS * positions * model.engine.model.config.get_text_config().vocab_size
    )
    part = max(1, min(len(texts), available_memory(ids.device) // logits))

    def step() -> None:
        tuned.zero_grad()
        for first in range(0, len(texts), part):
            rows = slice(first, first + part)
            output = tuned(
                input_ids=ids[rows], attention_mask=mask[rows].long(), labels=labels[rows]
            )
            (output.loss * len(ids[rows]) / len(texts)).backward()

    step()
    return {"seconds": timed(step, task["repetitions"]), "queries at once": part}


def represent_demur(model: ChatModel, task: Result) -> Result:
    """Representations through the engine, and what they take on disk."""
    prompt, texts = prompt_of(model, task["prompt"]), queries(task["queries"])
    read: list[Tensor] = []
    model.represent(texts[:2], Condition(prompt))
    seconds = timed(
        lambda: read.append(model.represent(texts, Condition(prompt))), task["repetitions"]
    )
    return {"seconds": seconds, "bytes": bytes_of({"representations": read[0]})}


def represent_straightforward(model: ChatModel, task: Result) -> Result:
    """One query at a time, every layer's hidden states at every position kept."""
    prompt, texts = prompt_of(model, task["prompt"]), queries(task["queries"])
    network = model.engine.model
    states: dict[str, Tensor] = {}

    def read() -> None:
        for row, text in enumerate(texts):
            ids, _ = whole(model, [text], prompt)
            output = network(ids, output_hidden_states=True)
            states[str(row)] = torch.stack(output.hidden_states).cpu()

    with torch.inference_mode():
        network(whole(model, texts[:1], prompt)[0])
        seconds = timed(read, task["repetitions"])
    return {"seconds": seconds, "bytes": bytes_of(states)}


def targets_of(model: ChatModel) -> list[tuple[int, ...]]:
    """The openings of refusals that are scored behind each query."""
    return [model.target_ids(opening) for opening in OPENINGS]


def score_demur(model: ChatModel, task: Result) -> Result:
    """Log-probabilities of some continuations of each query, all in one row."""
    prompt, texts = prompt_of(model, task["prompt"]), queries(task["queries"])
    targets = [targets_of(model)] * len(texts)
    model.score(texts[:2], targets[:2], Condition(prompt))
    seconds = timed(lambda: model.score(texts, targets, Condition(prompt)), task["repetitions"])
    return {"seconds": seconds, "scores": len(texts) * len(OPENINGS)}


def score_straightforward(model: ChatModel, task: Result) -> Result:
    """One whole conversation at a time, logits at all positions; fewer queries."""
    prompt = prompt_of(model, task["prompt"])
    texts = queries(task["queries"])[:: max(1, task["queries"] // task["few"])]
    network, targets = model.engine.model, targets_of(model)

    def score() -> None:
        for text in texts:
            ids, _ = whole(model, [text], prompt)
            for target in targets:
                more = torch.tensor([target], device=ids.device)
                shares = network(torch.cat([ids, more], dim=1)).logits[0].float().log_softmax(-1)
                shares[-len(target) - 1 : -1].gather(1, more.T).cpu()

    with torch.inference_mode():
        network(whole(model, texts[:1], prompt)[0])
        seconds = timed(score, 1)
    return {"seconds": seconds, "scores": len(texts) * len(targets)}


def likelihood_demur(model: ChatModel, task: Result) -> Result:
    """A training step on the log-probabilities of the same continuations."""
    prompt, texts = prompt_of(model, task["prompt"]), queries(task["queries"])
    rows, targets = model.prompt_embeddings(prompt), [targets_of(model)] * len(texts)
    tokens = sum(map(len, targets[0])) * len(texts)

    def step() -> tuple[float, Tensor]:
        return model.prompt_gradient(
            texts,
            Condition(prompt),
            rows,
            lambda read, _: -read.token_values.sum() / tokens,
            targets,
        )

    loss, gradient = step()
    seconds = timed(step, task["repetitions"])
    return {
        "seconds": seconds,
        "loss": loss,
        "gradient": float(gradient.norm()),
        "scores": len(texts) * len(OPENINGS),
    }


def likelihood_straightforward(model: ChatModel, task: Result) -> Result:
    """The same, one whole conversation at a time, logits at all positions; fewer queries."""
    prompt = prompt_of(model, task["prompt"])
    texts = queries(task["queries"])[:: max(1, task["queries"] // task["few"])]
    network, targets = model.engine.model, targets_of(model)
    table, (start, end) = network.get_input_embeddings(), span_of(model, prompt)
    leaf = model.prompt_embeddings(prompt).to(network.device, network.dtype).requires_grad_()

    def step() -> None:
        for text in texts:
            ids, _ = whole(model, [text], prompt)
            for target in targets:
                more = torch.tensor([target], device=ids.device)
                embeddings = table(torch.cat([ids, more], dim=1))
                parts = [embeddings[:, :start], leaf[None], embeddings[:, end:]]
                logits = network(inputs_embeds=torch.cat(parts, dim=1), use_cache=False).logits[0]
                shares = logits.float().log_softmax(-1)
                torch.autograd.backward(-shares[-len(target) - 1 : -1].gather(1, more.T).sum())

    return {"seconds": timed(step, 1), "scores": len(texts) * len(targets)}


def bytes_of(tensors: dict[str, Tensor]) -> int:
    """What tensors take in a safetensors file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tensors.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
        return file.stat().st_size


def sample_demur(model: ChatModel, task: Result) -> Result:
    """Responses a second, and how many verdicts differ from those on full-length responses."""
    prompt, texts = prompt_of(model, task["prompt"]), queries(task["queries"])
    judge = PaperRefusalJudge()
    settings = SamplingSettings(samples=task["samples"], most_tokens=task["tokens"])
    started = time.perf_counter()
    early = model.read_and_sample(texts, Condition(prompt), settings, settled=judge.is_settled)
    seconds = time.perf_counter() - started
    full = model.read_and_sample(texts, Condition(prompt), settings)
    pairs = [
        (a.text, b.text)
        for some, others in zip(early.samples, full.samples, strict=True)
        for a, b in zip(some, others, strict=True)
    ]
    agree = sum(judge.refuses(a) == judge.refuses(b) for a, b in pairs)
    tokens = sum(sample.tokens for samples in early.samples for sample in samples)
    return {
        "seconds": seconds,
        "responses": len(pairs),
        "agreement": agree / len(pairs),
        "refused": sum(judge.refuses(a) for a, _ in pairs) / len(pairs),
        "tokens": tokens / len(pairs),
    }


def sample_straightforward(model: ChatModel, task: Result) -> Result:
    """`generate` query by query, at a fixed length; fewer queries, for it takes long."""
    prompt = prompt_of(model, task["prompt"])
    texts = queries(task["queries"])[:: max(1, task["queries"] // task["few"])]
    network: Any = model.engine.model
    tokenizer = model.engine.tokenizer
    judge = PaperRefusalJudge()
    refused = responses = 0
    torch.manual_seed(0)
    started = time.perf_counter()
    with torch.inference_mode():
        for text in texts:
            ids, _ = whole(model, [text], prompt)
            output = network.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                top_k=50,
                top_p=0.9,
                temperature=1.0,
                repetition_penalty=1.0,
                max_new_tokens=task["tokens"],
                num_return_sequences=task["samples"],
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            )
            said = tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
            responses += len(said)
            refused += sum(judge.refuses(one) for one in said)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "responses": responses, "refused": refused / responses}


WAYS: dict[tuple[str, str], Callable[[ChatModel, Result], Result]] = {
    ("step", "demur"): step_demur,
    ("step", "straightforward"): step_straightforward,
    ("step", "batched"): step_batched,
    ("step", "peft"): step_peft,
    ("represent", "demur"): represent_demur,
    ("represent", "straightforward"): represent_straightforward,
    ("score", "demur"): score_demur,
    ("score", "straightforward"): score_straightforward,
    ("likelihood", "demur"): likelihood_demur,
    ("likelihood", "straightforward"): likelihood_straightforward,
    ("sample", "demur"): sample_demur,
    ("sample", "straightforward"): sample_straightforward,
    ("sample", "batched"): sample_batched,
}


def main() -> None:
    """Measure what the one argument describes."""
    task = json.loads(sys.argv[1])
    own_way = task["way"] == "demur"
    model = load(task["model"], task["dtype"], task["device"], keep_freed_memory=own_way)
    if not own_way:
        model.engine.model.set_attn_implementation("sdpa")
    started = time.time() - task["begun"]
    loaded = resident(model)
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found = WAYS[task["what"], task["way"]](model, task)
    found["peak"] = max(resident(model), loaded)
    found["loaded"] = loaded
    found["started"] = started
    print(json.dumps(found))


def resident(model: ChatModel) -> int:
    """The most bytes that this process has held: on the GPU where the model is on one."""
    if model.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
