"""A vLLM server of a tiny model: continuations of token ids and embeddings, as vLLM gives them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from transformers import PreTrainedModel

from demur.chat.embeddings import decode
from tests.endpoint_server import Reply

NAME = "tiny-at-vllm"


def sampling(
    model: PreTrainedModel, *, takes_rows: bool = True, ignored: Collection[str] = ()
) -> Callable[[dict[str, Any]], Reply]:
    """What answers requests for completions.

    Args:
        model: the model that is served.
        takes_rows: whether it was started with `--enable-prompt-embeds`.
        ignored: options that have no effect.
    """

    def reply(body: dict[str, Any]) -> Reply:
        asked = {name: value for name, value in body.items() if name not in ignored}
        if "prompt_embeds" not in body:
            rows = model.get_input_embeddings()(torch.tensor(body["prompt"]))
        elif takes_rows:
            rows = decode(body["prompt_embeds"])
        else:
            told = "You must set `--enable-prompt-embeds` to input `prompt_embeds`."
            return 400, {"error": {"message": told, "code": 400}}
        assert body["ignore_eos"] is True
        assert body["repetition_penalty"] == 1.0
        assert body["n"] == 1 or body["temperature"] > 0, "vLLM refuses several greedy ones"
        choices = [_choice(model, rows, asked, number) for number in range(body["n"])]
        return 200, {"object": "text_completion", "choices": choices}

    return reply


def _choice(
    model: PreTrainedModel, rows: torch.Tensor, asked: dict[str, Any], number: int
) -> dict[str, Any]:
    ends = set(asked.get("stop_token_ids", ()))
    generator = torch.Generator()
    if "seed" in asked:
        generator.manual_seed(asked["seed"] + number)
    else:
        generator.seed()
    tokens: list[int] = []
    likely: list[float] = []
    finish = "length"
    while len(tokens) < asked["max_tokens"]:
        said = model.get_input_embeddings()(torch.tensor(tokens, dtype=torch.long))
        with torch.inference_mode():
            logits = model(inputs_embeds=torch.cat([rows, said])[None]).logits[0, -1].float()
        logits = logits.clone()
        log_p = logits.log_softmax(-1)
        if len(tokens) < asked.get("min_tokens", 0):
            logits[list(ends)] = -torch.inf
        token = _drawn(logits, asked, generator)
        tokens.append(token)
        likely.append(float(log_p[token]))
        if token in ends:
            finish = "stop"
            break
    found: dict[str, Any] = {"index": number, "text": "", "finish_reason": finish}
    if "logprobs" in asked:
        found["logprobs"] = {"token_logprobs": likely}
    return {**found, "token_ids": tokens}


def _drawn(logits: torch.Tensor, asked: dict[str, Any], generator: torch.Generator) -> int:
    temperature = asked.get("temperature", 1.0)
    if temperature == 0:
        return int(logits.argmax())
    values, ids = logits.topk(asked.get("top_k") or len(logits))
    probabilities = (values / temperature).softmax(-1)
    beyond = probabilities.cumsum(-1) - probabilities >= asked.get("top_p", 1.0)
    probabilities = probabilities.masked_fill(beyond, 0.0)
    return int(ids[torch.multinomial(probabilities, 1, generator=generator)])
