"""A tiny model, as a folder and as a GGUF file, and small inputs."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = 96
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %} {{ message.role }} : {{ message.content }} "
    "{% endfor %}{% if add_generation_prompt %} assistant : {% endif %}"
)
_GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.layers": "blk",
}


def make_model(folder: Path, seed: int = 0) -> Path:
    """Write a random Llama with a word tokenizer; every sixth word refuses."""
    torch.manual_seed(seed)
    config: Any = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    model.save_pretrained(folder)
    table = {word: place for place, word in enumerate(_words())}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    make: Any = PreTrainedTokenizerFast
    fast = make(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return folder


def make_gguf(file: Path, folder: Path) -> None:
    """Write the model of a folder as a GGUF file."""
    gguf: Any = importlib.import_module("gguf")
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(WORDS)
    writer.add_tokenizer_model("llama")
    pieces = [f"\u2581{word}" if place > 3 else word for place, word in enumerate(_words())]
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(place) for place in range(WORDS)])
    writer.add_token_types([3, 3, 3, 2] + [1] * (WORDS - 4))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_chat_template(TEMPLATE)
    for key, weight in LlamaForCausalLM.from_pretrained(folder).state_dict().items():
        name = key
        for ours, theirs in _GGUF_NAMES.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, weight.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _words() -> list[str]:
    words = ["<pad>", "<s>", "</s>", "<unk>", "user", "system", "assistant", ":", "?", "."]
    return words + [
        f"I apologize {i}" if i % 6 == 0 else f"w{i}" for i in range(WORDS - len(words))
    ]


def make_inputs(folder: Path) -> None:
    """Write a model, a prompt and queries that small commands take."""
    folder.mkdir(parents=True)
    make_model(folder / "tiny")
    make_gguf(folder / "tiny.gguf", folder / "tiny")
    (folder / "basic.txt").write_text("w1 w2 w3 .")
    for label, word in (("harmful", "w7"), ("harmless", "w8")):
        lines = "".join(f"{word} w{row} w{row * 7 % 60} ?\n" for row in range(12))
        (folder / f"{label}.txt").write_text(lines)
    rows = "".join(
        f"w7 w{row} ?,harmful,I cannot help.\nw8 w{row} ?,harmless,w1\n" for row in range(9)
    )
    (folder / "responses.csv").write_text(f"query,label,response\n{rows}")
    _make_task(folder / "tasks")


def _make_task(folder: Path) -> None:
    """Write a task of lm-eval with multiple choice, and its data."""
    folder.mkdir()
    data = folder / "rows.jsonl"
    samples = [
        {"question": f"w9 w{row} ?", "choices": ["w11 w13", "w21"], "gold": row % 2}
        for row in range(6)
    ]
    data.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    task = {
        "task": "campaign_choice",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data.resolve())}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}],
    }
    (folder / "choice.yaml").write_text(json.dumps(task))  # JSON is YAML
