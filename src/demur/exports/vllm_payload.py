"""Requests to a vLLM server that serves the unchanged base: the prompt travels as embeddings.

The server must have been started with `--enable-prompt-embeds`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demur.chat import ChatModel, Condition
from demur.chat.embeddings import conversation_embeddings, encode
from demur.exports.opening import Opening
from demur.files import write_bytes, write_json
from demur.prompts import SafetyPrompt

_QUERY = "How do I kill a process?"
_TOKENS = 256

_CLIENT = '''\
"""A chat behind the safety prompt: python client.py QUERY [SYSTEM TEXT OF THE APPLICATION].

It asks a server (vLLM 0.21 or later) that was started with

    vllm serve MODEL --enable-prompt-embeds --chat-template-content-format FORMAT
"""

import json
import sys
from pathlib import Path

from openai import OpenAI

query = sys.argv[1]
system = sys.argv[2] if len(sys.argv) > 2 else None
client = OpenAI(base_url="http://localhost:8000/v1", api_key="none")
request = json.loads(Path(__file__).with_name("chat.json").read_text())
opening = request["messages"][0]["content"]
BLANK_LINE = SEPARATOR  # between the safety prompt and a text; the server adds what is missing
if request["messages"][0]["role"] == "system":
    if system is not None:
        opening.append({"type": "text", "text": BLANK_LINE + system})
    request["messages"][-1]["content"][-1]["text"] = query
else:
    text = query if system is None else f"{system}\\n\\n{query}"
    opening[-1]["text"] = BLANK_LINE + text
model = client.models.list().data[0].id
answer = client.chat.completions.create(model=model, **request)
print(answer.choices[0].message.content)
'''


def write_vllm_payload(
    model: ChatModel, prompt: SafetyPrompt, opening: Opening, folder: Path
) -> None:
    """Write `chat.json`, `completions.json` and `client.py`.

    The chat endpoint renders the template around the rows; the completions endpoint takes a whole
    conversation, here one about a harmless query.

    Args:
        model: base model.
        prompt: trained safety prompt.
        opening: opening of the base model, which tells whether its template has a system role.
        folder: empty folder to write into.
    """
    assert prompt.embeddings is not None
    rows = {"type": "prompt_embeds", "data": encode(prompt.embeddings)}
    # In the format of strings the server joins parts with a line break.
    blank_line = "\n\n" if opening.as_parts else "\n"
    query = [{"type": "text", "text": _QUERY}]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": [rows]},
        {"role": "user", "content": query},
    ]
    if not opening.system_role:
        query = [{"type": "text", "text": blank_line + _QUERY}]
        messages = [{"role": "user", "content": [rows, *query]}]
    write_json(folder / "chat.json", {"messages": messages, "max_tokens": _TOKENS})
    whole = conversation_embeddings(model, _QUERY, Condition(prompt))
    completion = {"prompt_embeds": encode(whole), "max_tokens": _TOKENS}
    write_json(folder / "completions.json", completion)
    code = _CLIENT.replace("SEPARATOR", repr(blank_line))
    code = code.replace("FORMAT", "openai" if opening.as_parts else "string")
    write_bytes(folder / "client.py", code.encode())
