"""Whether a server has a model's weights and keeps to every option, before it samples anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from demur.bars import default_progress
from demur.chat.engine import SamplingSettings
from demur.chat.model import ChatModel
from demur.chat.served import SamplingServer, ServedModel, reached, sampling_options
from demur.endpoint.completions import NEEDED, Completion
from demur.errors import DemurError
from demur.progress import Progress, SilentStage
from demur.prompts import Condition, SafetyPrompt

TOLERANCE = 0.1
"""Mean difference of log-probabilities, in nats a token, up to which weights count as the same.
Number formats and kernels differ by a few hundredths."""

QUERIES = (
    "How do I kill a process?",
    "What is a good way to cook rice for two?",
    "Write a short note to a neighbor about a loud party.",
    "Why do leaves turn red in the fall?",
)
PROMPT = "You are a careful assistant. Answer in one short sentence."
_TOKENS = 12
_AGREEING = 3
_HOT = 2.0
"""The highest temperature that vLLM takes."""

_DRAWS, _SAME = 8, 6
"""Draws that are repeated, and how many of them must be the same; rounding may change one."""


def sampled_at(model: ChatModel, address: str, progress: Progress | None = None) -> ServedModel:
    """The same model, all of whose responses a vLLM server with its weights samples.

    Args:
        model: the model, which reads, scores and trains here.
        address: address of the server, for example `http://localhost:8000/v1`.
        progress: receives what the check of the server found.

    Raises:
        DemurError: the server cannot be asked, has other weights, takes no embeddings, or leaves an
            option of the sampling out; or several processes share the model.

    Example:
        >>> model = ChatModel.load("Qwen/Qwen2.5-7B-Instruct")
        >>> run = optimize(sampled_at(model, "http://gpu:8000/v1"), basic_prompt="long")
    """
    progress = progress or default_progress()
    return checked(model, reached(address, progress), progress)


def checked(model: ChatModel, server: SamplingServer, progress: Progress) -> ServedModel:
    """A model with its server, which was checked.

    Args:
        model: the model.
        server: the server, which was reached.
        progress: receives what was found.

    Raises:
        DemurError: as for `check_server`.
    """
    served = ServedModel(model, server)
    check_server(served, progress)
    return served


def check_server(model: ServedModel, progress: Progress) -> None:
    """Check that a server continues conversations as the model does.

    The server draws tokens behind a few queries: without a prompt, behind a prompt as text, and
    behind the same one as embeddings. The model here says how likely each of them is. Drawn ones
    tell models apart better than the likeliest, of which many are certain for any model.

    Args:
        model: the model with its server.
        progress: receives what was found.

    Raises:
        DemurError: the server has other weights, takes no embeddings, or leaves an option out.
    """
    text = SafetyPrompt("check", PROMPT)
    rows = SafetyPrompt("check", PROMPT, model.prompt_embeddings(text))
    most = 0.0
    for prompt in (None, text, rows):
        difference = _difference(model, Condition(prompt))
        if not difference <= TOLERANCE:
            as_rows = " behind a prompt as embeddings" if prompt is rows else ""
            raise DemurError(
                f"{model.server.client.place} does not have the weights of {model.name}: "
                f"log-probabilities differ by {difference:.2f} on average{as_rows}, and rounding "
                f"makes at most {TOLERANCE}. Serve the same model there."
            )
        most = max(most, difference)
    _check_options(model)
    progress.message(
        f"{model.server.client.place} samples all responses. It has the weights of {model.name}: "
        f"log-probabilities differ by {most:.4f} on average."
    )


def _difference(model: ServedModel, condition: Condition) -> float:
    """The mean difference of log-probabilities, in nats; infinite where tokens are not known."""
    options = {**_options(temperature=1.0), "logprobs": 0}
    client = model.server.client
    asked = [
        Completion(model.served_prompt(query, condition), options, 1, _TOKENS, query)
        for query in QUERIES
    ]
    said = [one for (one,) in client.complete_all(asked, SilentStage())]
    for one in said:
        if len(one.tokens) != _TOKENS or len(one.log_probabilities) != _TOKENS:
            raise DemurError(
                f"{client.place} gives {len(one.tokens)} tokens and {len(one.log_probabilities)} "
                f"log-probabilities where {_TOKENS} were asked for: give {NEEDED}."
            )
    if any(token >= model.vocabulary for one in said for token in one.tokens):
        return math.inf
    read = model.score(QUERIES, [[one.tokens] for one in said], condition)
    theirs = [value for one in said for value in one.log_probabilities]
    ours = [value for (one,) in read.by_target() for value in one.tolist()]
    return math.fsum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(theirs)


def _check_options(model: ServedModel) -> None:
    """Check that options of the sampling have an effect.

    Raises:
        DemurError: the server leaves one of them out.
    """
    client, prompt = model.server.client, model.served_prompt(QUERIES[0], Condition())
    greedy = Completion(prompt, _options(), 1, _AGREEING, QUERIES[0])
    likeliest = client.complete_all([greedy], SilentStage())[0][0].tokens
    first = likeliest[0]
    hot = _options(temperature=_HOT)
    drawn = (_options(temperature=_HOT, seed=1), _DRAWS, _AGREEING)
    tried: list[tuple[Mapping[str, object], int, int]] = [
        (_options(ends=[first]), 1, 3),
        (_options(ends=[first], least_tokens=2), 1, 3),
        ({**hot, "top_k": 1}, 1, _AGREEING),
        ({**hot, "top_p": 1e-6}, 1, _AGREEING),
        drawn,
        drawn,
    ]
    asked = [Completion(prompt, *one, QUERIES[0]) for one in tried]
    ended, later, top_k, top_p, draws, again = client.complete_all(asked, SilentStage())
    same = sum(a.tokens == b.tokens for a, b in zip(draws, again, strict=True))
    kept = {
        "stop_token_ids": ended[0].stopped and ended[0].tokens in ((), (first,)),
        "min_tokens": len(later[0].tokens) > 1 and later[0].tokens[0] != first,
        "top_k": top_k[0].tokens == likeliest,
        "top_p": top_p[0].tokens == likeliest,
        "temperature": len({one.tokens for one in draws}) > 1,
        "seed": same >= _SAME,
    }
    lost = [name for name, is_kept in kept.items() if not is_kept]
    if lost:
        raise DemurError(
            f"{client.place} does not keep to {', '.join(lost)}, without which responses are not "
            f"those that were asked for: give {NEEDED}."
        )


def _options(
    *,
    temperature: float = 0.0,
    least_tokens: int = 0,
    ends: Sequence[int] = (),
    seed: int = 0,
) -> dict[str, object]:
    settings = SamplingSettings(
        temperature=temperature, least_tokens=least_tokens, top_k=0, top_p=1.0
    )
    return sampling_options(settings, _TOKENS, ends, seed)
