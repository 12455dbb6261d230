"""The model card of a published safety prompt: Markdown with metadata in YAML.

Names and texts come from the user or from a stranger and are never trusted: nothing in them becomes
markup.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from demur.errors import DemurError
from demur.hub import HubName
from demur.markdown import escaped, fenced
from demur.prompts import Fact, MeasuredPrompt, Provenance, SafetyPrompt
from demur.queries import queries_in_words
from demur.records import Label, Rate

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
HELD_OUT = "held-out queries"
"""Name of the fact that says on which queries the results were measured."""
VALIDATION = "validation queries"
"""Name of the fact that says on which queries the prompt was chosen among the epochs."""

_SHORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
_PAPER = re.compile(r"https://arxiv\.org/abs/(\d{4}\.\d{4,5})")

ENGINES = (
    ("transformers", "transformers, `vllm serve`, SGLang", "a model folder that any of them loads"),
    ("gguf", "llama.cpp", "a GGUF file with the quantization of the base"),
    ("ollama", "Ollama", "the GGUF file with a Modelfile"),
    ("peft", "PEFT", "a prompt-tuning adapter beside the unchanged model"),
    ("vllm", "vLLM, base model kept", "`prompt_embeds` payloads with a client example"),
)


@dataclass(frozen=True)
class Card:
    """What the user adds to a card.

    Attributes:
        license: license of the prompt as the hub writes it, for example `apache-2.0`, or None.
        base_model: hub name of the model, where the prompt does not name it.
        figure: content of a PNG file, or None.
        licenses: what an existing page says about the license, by the hub's key.

    Raises:
        DemurError: the license is none that the hub would take.
    """

    license: str | None = None
    base_model: str | None = None
    figure: bytes | None = None
    licenses: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.license is not None and not _LICENSE.fullmatch(self.license):
            raise DemurError(
                f"{self.license[:60]!r} is no license as the hub writes it: give apache-2.0, for "
                "example, or other."
            )


def model_card(prompt: SafetyPrompt, repository: str, card: Card, figure: str | None = None) -> str:
    """The card of a prompt.

    Args:
        prompt: prompt as it is published.
        repository: name of the repository, `organisation/name`.
        card: what the user adds.
        figure: name of the figure's file, or None.
    """
    base = card.base_model or base_model_of(prompt.provenance)
    parts = [
        _metadata(prompt, card, base, repository),
        f"# {escaped(repository)}",
        _purpose(prompt, base),
        _results(prompt.provenance, figure),
        _settings(prompt.provenance),
        _usage(prompt, repository, base),
        _text(prompt),
        _limits(prompt),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def base_model_of(provenance: Provenance) -> str | None:
    """The hub name of the model that a prompt was trained for, where its provenance says one."""
    named = provenance.base_model
    if named is not None and HubName.parse(named) is not None:
        return named
    # The identity of a model from the hub is `organisation/model@commit`.
    name = None if provenance.model is None else HubName.parse(provenance.model.identity)
    return None if name is None or name.revision is None else name.repository


def _metadata(prompt: SafetyPrompt, card: Card, base: str | None, repository: str) -> str:
    import yaml

    tags = ["demur", "safety-prompt"]
    if prompt.is_trained:
        tags.append("soft-prompt")
    paper = _paper(prompt.provenance)
    if paper is not None:
        tags.append(f"arxiv:{paper[1]}")
    data: dict[str, Any] = {
        "library_name": "demur",
        "tags": tags,
        "pipeline_tag": "text-generation",
        **({"license": card.license} if card.license else card.licenses),
    }
    if base is not None:
        data |= {"base_model": base, "base_model_relation": "adapter"}
    data |= _model_index(prompt.provenance, repository)
    return f"---\n{yaml.safe_dump(data, sort_keys=False, width=10_000)}---"


def _data_set(name: str | None, label: Label) -> str:
    """What the held-out queries of a label are called."""
    return f"held-out {label} queries" if name is None else queries_in_words(name, label)


def _told(fact: Fact) -> str:
    """A fact as the card says it: a query set in words where it is built in."""
    if fact.name not in (HELD_OUT, VALIDATION) or not fact.text:
        return fact.text
    words = queries_in_words(fact.text)
    return fact.text if words == f"queries of {fact.text}" else words


def _model_index(provenance: Provenance, repository: str) -> dict[str, Any]:
    """The results of the prompt itself, in the form that the hub shows beside the card.

    Every result has a task, a data set and a metric with a number, without which the hub takes none
    of them.
    """
    found = next((one for one in provenance.results if one.role == "this"), None)
    if found is None:
        return {}
    queries = next((one.text for one in provenance.measured if one.name == HELD_OUT), None)
    rates: dict[Label, Rate] = {
        "harmful": found.harmful_refused,
        "harmless": found.harmless_refused,
    }
    results = [
        {
            "task": {"type": "text-generation", "name": "Refusing queries"},
            "dataset": {"type": "demur", "name": _data_set(queries, label)},
            "metrics": [
                {
                    "type": "refusal-rate",
                    "name": f"{label.capitalize()} queries refused (%)",
                    "value": round(100 * rate.value, 1),
                }
            ],
        }
        for label, rate in rates.items()
    ]
    return {"model-index": [{"name": repository, "results": results}]}


def _paper(provenance: Provenance) -> re.Match[str] | None:
    # An address from a stranger is shown only where it can be nothing but a paper's.
    return _PAPER.fullmatch(provenance.paper or "")


def _purpose(prompt: SafetyPrompt, base: str | None) -> str:
    if not prompt.is_trained:
        found = prompt.provenance.method is not None
        return (
            f"A {'' if found else 'hand-written '}safety prompt: text that opens the conversation, "
            "so that a chat model refuses harmful requests and answers harmless ones."
            + (f" {_training(prompt.provenance, 'Its wording was found')}" if found else "")
        )
    return (
        f"A safety prompt for {_linked(prompt, base)}, so that it refuses harmful requests and "
        f"answers harmless ones. It is {prompt.rows} trained token embeddings of {prompt.width} "
        "numbers that open the conversation in the place of a hand-written safety prompt; the "
        f"model's weights stay as they are. {_training(prompt.provenance)}\n\n"
        "Use it for a model that you serve to people, with that model's own chat template. It is "
        f"of no use to any other model.{_identity(prompt.provenance)}"
    )


def _training(provenance: Provenance, done: str = "Trained") -> str:
    if provenance.method is None:
        return f"{done} by `demur`."
    paper, title = _paper(provenance), escaped(provenance.method)
    method = title if paper is None else f"[{title}]({paper[0]})"
    return f"{done} with the method {method} by `demur`."


def _linked(prompt: SafetyPrompt, base: str | None) -> str:
    if base is not None:
        return f"[{escaped(base)}](https://huggingface.co/{base})"
    model = prompt.provenance.model
    return "one certain model" if model is None else f"the model {escaped(model.name)}"


def _identity(provenance: Provenance) -> str:
    if provenance.model is None:
        return ""
    return f" The weights that it was trained on: {escaped(provenance.model.identity)}."


def _results(provenance: Provenance, figure: str | None) -> str:
    lines = ["## Results"]
    if not provenance.results:
        lines.append("None are recorded: measure it with `demur evaluate` before you rely on it.")
    else:
        lines += [
            "Refused, of held-out queries that the training never saw, with 95 % intervals. More "
            "harmful and fewer harmless queries refused is better.",
            "\n".join(
                [
                    "| safety prompt | harmful queries | harmless queries | KL cost (nats) "
                    "| first word changed |",
                    "|---|---|---|---|---|",
                    *map(_row, provenance.results),
                ]
            ),
            _how(provenance),
        ]
        if provenance.with_system_prompt:
            lines.append(
                "All of it was measured with an application's own system text after the safety "
                "prompt. That text is not published here."
            )
    if figure is not None:
        lines.append(
            "![Held-out queries in the model's representations: under the hand-written prompt, "
            f"and under this one]({figure})"
        )
        lines.append(
            "*Held-out queries, placed by the model's own representations of them. Dashed "
            "arrows: what the hand-written prompt does. Solid arrows: what this one adds.*"
        )
    return "\n\n".join(line for line in lines if line)


def _row(result: MeasuredPrompt) -> str:
    names = {
        "none": "none",
        "basic": f"{escaped(result.prompt)}, hand-written",
        "this": "**this one**",
    }
    cost = "" if result.divergence is None else f"{result.divergence:.2f}"
    return (
        f"| {names[result.role]} | {_rate(result.harmful_refused)} "
        f"| {_rate(result.harmless_refused)} | {cost} "
        f"| {'' if result.changed is None else _rate(result.changed)} |"
    )


def _rate(rate: Rate) -> str:
    low, high = 100 * rate.interval.low, 100 * rate.interval.high
    return f"{100 * rate.value:.0f} % of {rate.queries} ({low:.0f} to {high:.0f})"


def _how(provenance: Provenance) -> str:
    sentences = []
    if provenance.measured:
        facts = [f"{escaped(one.name)}: {escaped(_told(one))}" for one in provenance.measured]
        sentences.append(f"How: {'; '.join(facts)}.")
    if any(result.divergence is not None for result in provenance.results):
        sentences.append(
            "First word changed: for how many harmless queries the likeliest first token is "
            "another than without a prompt. "
            "KL cost: how far the prompt moves the first token of answers to harmless queries from "
            "those without a prompt."
        )
    return " ".join(sentences)


def _settings(provenance: Provenance) -> str:
    if not provenance.settings:
        return ""
    rows = [f"| {escaped(one.name)} | {escaped(_told(one))} |" for one in provenance.settings]
    return "\n".join(["## Settings of the training", "", "| setting | value |", "|---|---|", *rows])


def _usage(prompt: SafetyPrompt, repository: str, base: str | None) -> str:
    model = _loaded_by(prompt, base)
    parts = [
        "## How to use it",
        "`demur` fetches it by its name; add `@` and a commit to pin it.",
        f"    demur chat {model} --prompt {repository}\n"
        f"    demur evaluate {model} --prompt none --prompt {repository}",
        "In Python:",
        "    from demur import ChatModel, evaluate\n\n"
        f'    model = ChatModel.load("{model}")\n'
        f'    print(evaluate(model, prompts=[None, "{repository}"]))',
    ]
    if prompt.is_trained:
        rows = [
            f"| {engine} | `demur export {repository} --to {target} DIR` | {what} |"
            for target, engine, what in ENGINES
        ]
        parts += [
            "In an engine that you run already, without `demur` in it:",
            "\n".join(["| engine | command | what it writes |", "|---|---|---|", *rows]),
        ]
    return "\n\n".join(parts)


def _loaded_by(prompt: SafetyPrompt, base: str | None) -> str:
    """The name that `demur` loads the model by: for a catalog model its short name."""
    model = prompt.provenance.model
    if model is not None and model.identity.startswith("sha256:") and _SHORT.fullmatch(model.name):
        return model.name
    return base or "MODEL"


def _text(prompt: SafetyPrompt) -> str:
    if prompt.text is None:
        return ""
    if not prompt.is_trained:
        return f"## The prompt\n\n{fenced(prompt.text)}"
    return (
        "## Where the training began\n\nThe embeddings took the place of those of this text. They "
        f"are no words, and cannot be turned back into any.\n\n{fenced(prompt.text)}"
    )


def _limits(prompt: SafetyPrompt) -> str:
    limits = [
        "A safety prompt lowers the share of harmful answers. It does not bring it to zero, and "
        "people who set out to get around it will find ways.",
        "It sometimes refuses what is harmless. The table says how often, on one set of queries.",
        "The results are of single turns. Long conversations, other languages and tools that feed "
        "the model text are not in them.",
    ]
    if prompt.is_trained:
        limits.append(
            "It fits one model with one chat template. Other weights, even a fine-tuned version of "
            "the same ones, need a measurement of their own."
        )
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)
