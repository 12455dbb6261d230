"""Safety tokens, and chat templates that open every conversation with them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken

from demur.chat import ChatModel
from demur.chat.gguf_header import read_header
from demur.chat.rendering import ChatRenderer
from demur.errors import DemurError
from demur.exports.template_check import TemplateCheck, Trial
from demur.exports.template_forms import FORMS, TOOLS, Form, with_tools
from demur.exports.template_rewriting import WAYS, Way, switches
from demur.prompts import SafetyPrompt

_MAIN, _WITH_TOOLS = "default", "tool_use"


@dataclass(frozen=True)
class Opening:
    """The safety tokens in a tokenizer of their own, with templates that open with them.

    Attributes:
        tokenizer: a copy of the model's, with the tokens and the main template.
        first_id: the first token's id; the others follow it.
        system_role: whether the model's own template has a system message.
        more: further templates by name, for example `tool_use`, which some engines take where a
            conversation offers tools.
        left_out: what is wrong with each further template that cannot open with the tokens.
        as_parts: whether the model's own template takes the content of messages as parts alone.
    """

    tokenizer: Any
    first_id: int
    system_role: bool
    more: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    as_parts: bool = False

    @property
    def templates(self) -> dict[str, str]:
        """All templates by name; the main one is the `default`."""
        return {_MAIN: str(self.tokenizer.chat_template), **self.more}

    @property
    def named_templates(self) -> list[dict[str, str]]:
        """All templates, as `GGUFWriter` takes them."""
        return [{"name": name, "template": text} for name, text in self.templates.items()]


@dataclass(frozen=True)
class SafetyTokens:
    """A tokenizer with the safety tokens of a prompt.

    Attributes:
        prompt: trained safety prompt.
        tokenizer: a copy of a model's tokenizer, with the tokens.
        names: a name for each row of the prompt; other prompts' tokens have other names.
        ids: ids of the tokens, one behind the other.
    """

    prompt: SafetyPrompt
    tokenizer: Any
    names: Sequence[str]
    ids: Sequence[int]

    @classmethod
    def added(cls, tokenizer: Any, prompt: SafetyPrompt, model_name: str) -> SafetyTokens:
        """Add the tokens of a prompt to a copy of a tokenizer.

        Raises:
            DemurError: the tokenizer's ids have a gap.
        """
        copied: Any = copy.deepcopy(tokenizer)
        names = safety_token_names(prompt)
        added = [AddedToken(name, special=True, normalized=False) for name in names]
        copied.add_tokens(added, special_tokens=True)
        ids = copied.convert_tokens_to_ids(names)
        if ids != list(range(ids[0], ids[0] + len(ids))):
            raise DemurError(
                f"The tokenizer of {model_name} gives new tokens no ids in a row: "
                "export to peft instead."
            )
        return cls(prompt, copied, names, ids)


@dataclass(frozen=True)
class OpenedTemplate:
    """A template that opens every conversation with safety tokens.

    Attributes:
        template: the Jinja chat template.
        way: how the tokens come in front.
        trials: what it did with every form of a conversation.
    """

    template: str
    way: Way
    trials: Sequence[Trial]


def open_template(
    renderer: ChatRenderer,
    tokens: SafetyTokens,
    name: str,
    *,
    may_think: bool = True,
    forms: Sequence[Form] = FORMS,
) -> OpenedTemplate:
    """Let a chat template open every conversation with safety tokens.

    It is tried on all forms of a conversation that engines send: texts and parts, with and without
    system messages of an application, one or several of them, in front or later, with tools, with
    an answer in front. The token ids must be those that demur itself uses. A text that writes the
    name of a safety token must not become the token.

    Args:
        renderer: renderer with the template.
        tokens: the safety tokens.
        name: name of the model, for messages.
        may_think: whether an engine may turn on the thinking that the template leaves out by
            default. llama.cpp does that by itself.
        forms: forms of a conversation that an engine renders with this template.

    Raises:
        DemurError: in no way all conversations are what they should be.
    """
    renderer.render_text("?", tools=TOOLS if all(form.offers_tools for form in forms) else ())
    assignments = switches(renderer.options, may_think)
    fewest: list[Trial] | None = None
    for way in WAYS:
        template = way.template(renderer.template, tokens.names, _mark(tokens.prompt), assignments)
        check = TemplateCheck(
            renderer, tokens.prompt, tokens.tokenizer, template, tokens.ids, tokens.names
        )
        trials = check.trials(forms)
        wrong = [trial for trial in trials if trial.outcome == "wrong"]
        if not wrong:
            if check.lets_users_write_tokens(forms[0].options):
                raise DemurError(
                    f"The chat template of {name} lets a user write safety tokens: "
                    "export to peft instead."
                )
            return OpenedTemplate(template, way, trials)
        if fewest is None or len(wrong) < len(fewest):
            fewest = wrong
    assert fewest
    raise DemurError(
        f"The chat template of {name} cannot open every conversation with the safety prompt. In "
        f"one with {fewest[0].form.name}, {fewest[0].problem}: export to peft instead."
    )


def make_opening(model: ChatModel, prompt: SafetyPrompt, *, may_think: bool = True) -> Opening:
    """Add the safety tokens to a copy of the tokenizer and write the templates.

    Args:
        model: base model.
        prompt: trained safety prompt.
        may_think: whether an engine may turn on the thinking that the template leaves out by
            default.

    Raises:
        DemurError: the tokenizer's ids have a gap, or no template gives the same ids.
    """
    tokens = SafetyTokens.added(model.engine.tokenizer, prompt, model.name)
    main = open_template(model.renderer, tokens, model.name, may_think=may_think)
    tokens.tokenizer.chat_template = main.template
    more: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for name, template in _further_templates(model).items():
        try:
            renderer = ChatRenderer(model.engine.tokenizer, template=template)
            forms = with_tools(FORMS) if name == _WITH_TOOLS else FORMS
            title = f"{model.name} for {name}"
            opened = open_template(renderer, tokens, title, may_think=may_think, forms=forms)
            more[name] = opened.template
        except DemurError as error:
            left_out[name] = str(error)
    system_role = main.way.place == "system message"
    return Opening(tokens.tokenizer, tokens.ids[0], system_role, more, left_out, main.way.as_parts)


def safety_token_names(prompt: SafetyPrompt) -> list[str]:
    """A name for each row of a trained prompt; other prompts' tokens have other names."""
    return [f"<|{_mark(prompt)}{row}|>" for row in range(prompt.rows)]


def _mark(prompt: SafetyPrompt) -> str:
    """What the names of all safety tokens of a prompt have in common, and nothing else has."""
    assert prompt.embeddings is not None
    digest = hashlib.sha256(prompt.embeddings.numpy().tobytes()).hexdigest()[:8]
    return f"safety-{digest}-"


def _further_templates(model: ChatModel) -> dict[str, str]:
    """Templates of a model beside its main one; none where another main one was given."""
    found = {}
    if model.gguf is not None:
        found = read_header(model.gguf, model.name).templates
    elif isinstance(model.engine.tokenizer.chat_template, dict):
        found = dict(model.engine.tokenizer.chat_template)
    own = found.pop(_MAIN, None)
    if own is None or not model.renderer.template.startswith(own.removesuffix("\n")):
        return {}
    return found
