"""A prompt-tuning adapter that plain PEFT loads.

Its virtual tokens are everything that stands before the first query: the whole rendered system
block with the trained rows inside, and the header of the first user message.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from demur.chat import ChatModel, Condition
from demur.chat.embeddings import conversation_embeddings
from demur.errors import DemurError
from demur.exports.template_check import messages_of, rendered
from demur.files import write_bytes, write_json
from demur.prompts import SafetyPrompt

_MARK = "\ue0d0\uf0a5\ue0d1"

_QUERIES = ("How do I kill a process?", "Name a tree.", "1 + 1 = ?")

_TEMPLATE = """\
{%- if messages[0]["role"] != "user" -%}
{{- raise_exception("The adapter holds the system message: begin with a user message.") -}}
{%- endif -%}
{%- set messages = [{"role": "user", "content": "MARK" + messages[0]["content"]}] \
+ messages[1:] -%}
{%- set conversation -%}{{ "" }}BASE{{ "" }}{%- endset -%}
{%- set behind = conversation.split("MARK", 1)[1] -%}
{%- if tools -%}
{{- raise_exception("The adapter takes no tools, which would stand in its system message.") -}}
{%- endif -%}
{%- for message in messages if message["role"] in ["system", "developer"] -%}
{%- for part in ([message["content"]] if message["content"] is string \
else message["content"] or []) -%}
{%- if (part if part is string else part["text"]) | trim not in behind -%}
{{- raise_exception("The adapter holds the system message, and the template drops later ones.") -}}
{%- endif -%}
{%- endfor -%}
{%- endfor -%}
{{- behind -}}
"""


def write_peft_adapter(
    model: ChatModel, prompt: SafetyPrompt, folder: Path, system_prompt: str | None = None
) -> None:
    """Write `adapter_config.json`, `adapter_model.safetensors` and `chat_template.jinja`.

    The template renders what follows the virtual tokens.

    Args:
        model: base model.
        prompt: trained safety prompt.
        folder: empty folder to write into.
        system_prompt: application's own system text, which becomes part of the adapter, or None.

    Raises:
        DemurError: the model's chat template cannot be split before the first query.
    """
    condition = Condition(prompt, system_prompt)
    template = _TEMPLATE.replace("BASE", model.renderer.template).replace("MARK", _MARK)
    opening = _opening(model, condition, template)
    rows = conversation_embeddings(model, _QUERIES[0], condition)[:opening].clone()
    config = model.engine.model.config.get_text_config()
    settings: dict[str, Any] = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(model.engine.model.config.name_or_path or model.name),
        "inference_mode": True,
        "num_virtual_tokens": len(rows),
        "token_dim": model.width,
        "num_transformer_submodules": 1,
        "num_attention_heads": int(getattr(config, "num_attention_heads", 1)),
        "num_layers": int(config.num_hidden_layers),
        "prompt_tuning_init": "RANDOM",
    }
    write_json(folder / "adapter_config.json", settings)
    save_file({"prompt_embeddings": rows}, folder / "adapter_model.safetensors")
    write_bytes(folder / "chat_template.jinja", template.encode())


def _opening(model: ChatModel, condition: Condition, template: str) -> int:
    """How many tokens stand before the first query; the template must give exactly the rest.

    Raises:
        DemurError: it does not.
    """
    tokenizer = model.engine.tokenizer
    options = model.renderer.options
    conversations = [(messages_of([("user", query)]), options) for query in _QUERIES]
    renderings = rendered(tokenizer, conversations, template)
    openings: set[tuple[int, ...]] = set()
    for query, rendering in zip(_QUERIES, renderings, strict=True):
        inputs = model.inputs([query, query], condition)
        whole = (*inputs.prefix, *inputs.suffixes[0])
        found = () if rendering is None else tuple(rendering.ids)
        end = len(whole) - len(found)
        openings.add(whole[:end])
        if not found or whole[end:] != found or len(openings) > 1:
            raise DemurError(
                f"The chat template of {model.name} cannot be split before the first query: "
                "export to transformers instead."
            )
    return len(openings.pop())
