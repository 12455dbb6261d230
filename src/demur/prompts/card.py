"""The model card of a published safety prompt: Markdown with metadata in YAML.

Names and texts come from the user and are never trusted: nothing of them is markup.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from demur.errors import DemurError
from demur.hub import HubName

if TYPE_CHECKING:
    from demur.prompts.safety_prompt import SafetyPrompt

PAPER = "https://arxiv.org/abs/2401.18018"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")

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

    Raises `DemurError` for a license that the hub would not take.

    Attributes:
        license: as the hub writes it, for example `apache-2.0`.
        base_model: the hub name of the model, where the prompt does not say it.
        figure: a PNG file's content.
        licenses: what a page that is there already says about the license.
    """

    license: str | None = None
    base_model: str | None = None
    figure: bytes | None = None
    licenses: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.license is not None and not _LICENSE.fullmatch(self.license):
            raise DemurError(
                f"{self.license[:60]!r} is no license as the hub writes them: give apache-2.0, "
                "for example, or other"
            )


def model_card(
    prompt: SafetyPrompt,
    repository: str,
    card: Card,
    figure: str | None = None,
    *,
    with_system_prompt: bool = False,
) -> str:
    """The card of a prompt.

    Args:
        prompt: as it is published.
        repository: `organisation/name`.
        card: what the user adds.
        figure: the name of the figure's file, or None.
        with_system_prompt: whether it was measured with an application's own system text.
    """
    base = card.base_model or base_model_of(prompt)
    parts = [
        _metadata(prompt, card, base),
        f"# {escaped(repository)}",
        _purpose(prompt, base),
        _results(prompt, figure, with_system_prompt),
        _usage(prompt, repository, base),
        _text(prompt),
        _limits(prompt),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def base_model_of(prompt: SafetyPrompt) -> str | None:
    """The hub name of the model that a prompt was trained for, where its metadata says one."""
    named = prompt.metadata.get("base_model")
    if isinstance(named, str) and HubName.parse(named) is not None:
        return named
    # A hub model's identity is `organisation/model@commit`.
    name = HubName.parse(str(_model(prompt).get("identity", "")))
    return None if name is None or name.revision is None else name.repository


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    line = " ".join(_printable(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_{}\[\]()#!|~$])", r"\\\1", line)
    # Without these, an address would become a link and a name a mention.
    return line.replace("://", "&#58;//").replace("@", "&#64;").replace("www.", "www&#46;")


def fenced(text: str) -> str:
    """Text as a block of its own that nothing in it can end."""
    text = _printable(text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _printable(text: str) -> str:
    return "".join(
        one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text
    )


def _metadata(prompt: SafetyPrompt, card: Card, base: str | None) -> str:
    import yaml

    license_lines = {"license": card.license} if card.license else dict(card.licenses)
    data: dict[str, Any] = {
        "library_name": "demur",
        "tags": ["demur", "safety-prompt", "soft-prompt", "arxiv:2401.18018"]
        if prompt.is_trained
        else ["demur", "safety-prompt"],
        "pipeline_tag": "text-generation",
        **license_lines,
    }
    if base is not None:
        data |= {"base_model": base, "base_model_relation": "adapter"}
    return f"---\n{yaml.safe_dump(data, sort_keys=False, width=10_000)}---"


def _purpose(prompt: SafetyPrompt, base: str | None) -> str:
    if not prompt.is_trained:
        return (
            "A hand-written safety prompt: text that opens the conversation, so that a chat model "
            "refuses harmful requests and answers harmless ones."
        )
    return (
        f"A safety prompt for {_linked(prompt, base)}, so that it refuses harmful requests and "
        f"answers harmless ones. It is {prompt.rows} trained token embeddings of {prompt.width} "
        "numbers that open the conversation in the place of a hand-written safety prompt; the "
        "model's weights stay as they are. Trained with "
        f"[Directed Representation Optimization]({PAPER}) by `demur`.\n\n"
        "Use it for a model that you serve to people, with that model's own chat template. It is "
        f"of no use to any other model.{_identity(prompt)}"
    )


def _linked(prompt: SafetyPrompt, base: str | None) -> str:
    if base is not None:
        return f"[{escaped(base)}](https://huggingface.co/{base})"
    name = _model(prompt).get("name")
    return f"the model {escaped(str(name))}" if name else "one certain model"


def _identity(prompt: SafetyPrompt) -> str:
    identity = _model(prompt).get("identity")
    return "" if not identity else f" The weights that it was trained on: {escaped(str(identity))}."


def _results(prompt: SafetyPrompt, figure: str | None, with_system_prompt: bool) -> str:
    lines = ["## Results"]
    rows = _rows(prompt)
    if not rows:
        lines.append("None are recorded: measure it with `demur evaluate` before you rely on it.")
    else:
        lines += [
            "Refused, of held-out queries that the training never saw, with 95 % intervals. More "
            "harmful and fewer harmless queries refused is better.",
            "\n".join(
                [
                    "| safety prompt | harmful queries | harmless queries | KL cost (nats) |",
                    "|---|---|---|---|",
                    *rows,
                ]
            ),
            _how(prompt),
        ]
        if with_system_prompt:
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
            "*Held-out queries in two principal components of the model's representations. Dashed "
            "arrows: what the hand-written prompt does. Solid arrows: what this one adds.*"
        )
    return "\n\n".join(line for line in lines if line)


def _rows(prompt: SafetyPrompt) -> list[str]:
    found = prompt.metadata.get("results")
    rows = []
    try:
        for result in found or ():
            name = str(result["prompt"])
            shown = {"none": "none", "optimized": "**this one**"}.get(name)
            rows.append(
                f"| {shown or f'{escaped(name)}, hand-written'} "
                f"| {_rate(result['harmful_refused'])} | {_rate(result['harmless_refused'])} "
                f"| {float(result['divergence']):.2f} |"
            )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return []
    return rows


def _rate(rate: Mapping[str, Any]) -> str:
    interval = rate["interval"]
    return (
        f"{100 * rate['count'] / rate['queries']:.0f} % of {int(rate['queries'])} "
        f"({100 * interval['low']:.0f} to {100 * interval['high']:.0f})"
    )


def _how(prompt: SafetyPrompt) -> str:
    settings = prompt.metadata.get("settings")
    if not isinstance(settings, Mapping) or "judge" not in settings:
        return ""
    named = {
        "preset": "preset",
        "judge": "refusal judge",
        "samples": "responses a query",
        "tokens_harmful": "tokens at most",
        "temperature": "temperature",
        "seed": "seed",
    }
    facts = [
        f"{name} {escaped(str(settings[key]))}" for key, name in named.items() if key in settings
    ]
    return (
        f"How: {', '.join(facts)}. KL cost: how far the prompt moves the first token of answers to "
        "harmless queries from those without a prompt."
    )


def _usage(prompt: SafetyPrompt, repository: str, base: str | None) -> str:
    model = _loaded_by(prompt, base)
    parts = [
        "## How to use it",
        "`demur` fetches it by its name; add `@` and a commit to pin it.",
        f"    demur chat {model} --prompt {repository}\n"
        f"    demur evaluate {model} --prompt none --prompt {repository}",
        "In Python:",
        "    from demur import ChatModel, SafetyPrompt, evaluate\n\n"
        f'    model = ChatModel.load("{model}")\n'
        f'    prompt = SafetyPrompt.from_pretrained("{repository}")\n'
        "    print(evaluate(model, prompts=[None, prompt]))",
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
    """What `demur` loads the model by: a catalog model by its short name."""
    model = _model(prompt)
    name = str(model.get("name", ""))
    in_catalog = str(model.get("identity", "")).startswith("sha256:")
    if in_catalog and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", name):
        return name
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
        "Measured in single turns. Long conversations, other languages and tools that feed the "
        "model text were not.",
    ]
    if prompt.is_trained:
        limits.append(
            "It fits one model with one chat template. Other weights, even a fine-tuned version of "
            "the same ones, need a measurement of their own."
        )
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _model(prompt: SafetyPrompt) -> Mapping[str, Any]:
    model = prompt.metadata.get("model")
    return model if isinstance(model, Mapping) else {}
