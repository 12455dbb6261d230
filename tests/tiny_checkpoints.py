"""A random Llama for tests, as a folder and as a GGUF file, and how loading it fails."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demur.chat.loading import load_model
from demur.errors import DemurError

WORDS = ["<unk>", "<s>", "</s>", *(f"w{number}" for number in range(60)), "▁"]

GGUF_NAMES = {
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
"""Parts of the names of weights, as transformers and as GGUF files call them."""


def save_llama(folder: Path) -> None:
    """Write a random Llama with a word tokenizer, as `save_pretrained` does."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    make: Any = PreTrainedTokenizerFast
    tokenizer = make(tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    tokenizer.save_pretrained(folder)


def save_llama_gguf(
    file: Path,
    saved: Path,
    numbers: Mapping[str, int] | None = None,
    template: str | None = "{% for m in messages %}{{ m['content'] }}{% endfor %}",
) -> None:
    """Write the model of a `save_llama` folder as a GGUF file.

    Args:
        file: file to write.
        saved: folder of the model.
        numbers: more metadata, which replace those of the same key.
        template: chat template of the file, or None for none.
    """
    gguf: Any = importlib.import_module("gguf")
    model = LlamaForCausalLM.from_pretrained(saved)
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(WORDS)
    writer.add_token_scores([-float(i) for i in range(len(WORDS))])
    writer.add_token_types([2, 3, 3] + [1] * (len(WORDS) - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    if template is not None:
        writer.add_chat_template(template)
    for key, number in (numbers or {}).items():
        for part in writer.kv_data:
            part.pop(key, None)
        writer.add_uint32(key, number)
    for name, weight in model.state_dict().items():
        for ours, theirs in GGUF_NAMES.items():
            name = name.replace(ours, theirs)  # noqa: PLW2901
        writer.add_tensor(name, weight.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def loading_failure(spec: str | Path, **options: Any) -> str:
    """The one line that loading `spec` fails with."""
    with pytest.raises(DemurError) as info:
        load_model(spec, **options)
    assert "\n" not in str(info.value)
    return str(info.value)
