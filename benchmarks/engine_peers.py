"""Fair peers of the engine: what one writes with transformers and some care for speed.

A training step is one padded batch of whole conversations, of which the backbone's last hidden
state is read and no logits are computed. Responses come from one `generate` on a batch that is
padded on the left. Both stand beside the straightforward ways of `engine_ways.py`.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from demur.chat import ChatModel
from demur.judges.paper import PaperRefusalJudge
from engine_peak import timed
from engine_texts import prompt_of, queries, readout, span_of, whole

Result = dict[str, Any]


def step_batched(model: ChatModel, task: Result) -> Result:
    """A training step on one padded batch: last hidden states only, no logits."""
    prompt, texts = prompt_of(model, task["prompt"]), queries(task["queries"])
    rows, loss_of = model.prompt_embeddings(prompt), readout(model)
    ids, lengths = whole(model, texts, prompt)
    start, end = span_of(model, prompt)
    network = model.engine.model
    embedded = network.get_input_embeddings()(ids)
    places = torch.arange(len(texts), device=ids.device), (lengths - 1).to(ids.device)
    mask = (torch.arange(ids.shape[1])[None] < lengths[:, None]).long().to(ids.device)

    def step() -> tuple[float, Tensor]:
        leaf = rows.clone().to(network.device, network.dtype).requires_grad_()
        opening = leaf[None].expand(len(texts), -1, -1)
        embeddings = torch.cat([embedded[:, :start], opening, embedded[:, end:]], dim=1)
        output = network.base_model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False)
        loss = loss_of(output.last_hidden_state[places].float()).mean()
        torch.autograd.backward(loss)
        assert leaf.grad is not None
        return float(loss.detach()), leaf.grad

    loss, gradient = step()
    seconds = timed(step, task["repetitions"])
    return {"seconds": seconds, "loss": loss, "gradient": float(gradient.float().norm())}


def sample_batched(model: ChatModel, task: Result) -> Result:
    """All queries in one `generate`, padded on the left, some of them first to warm up."""
    prompt, texts = prompt_of(model, task["prompt"]), queries(task["queries"])
    network: Any = model.engine.model
    tokenizer, judge = model.engine.tokenizer, PaperRefusalJudge()
    ids, lengths = whole(model, texts, prompt)
    left = torch.stack(
        [
            row.roll(len(row) - int(length))  # what pads on the right goes to the left
            for row, length in zip(ids, lengths, strict=True)
        ]
    )
    longest = ids.shape[1]
    mask = (torch.arange(longest)[None] >= longest - lengths[:, None]).long().to(ids.device)

    def generate(count: int, tokens: int) -> Tensor:
        output: Tensor = network.generate(
            left[:count],
            attention_mask=mask[:count],
            do_sample=True,
            top_k=50,
            top_p=0.9,
            temperature=1.0,
            repetition_penalty=1.0,
            max_new_tokens=tokens,
            num_return_sequences=task["samples"],
            pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id or 0,
        )
        return output[:, longest:]

    torch.manual_seed(0)
    with torch.inference_mode():
        generate(2, 2)
        started = time.perf_counter()
        said = tokenizer.batch_decode(
            generate(len(texts), task["tokens"]), skip_special_tokens=True
        )
        refused = sum(judge.refuses(one) for one in said)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "responses": len(said), "refused": refused / len(said)}
