"""What a GGUF file says of a model, and how it stores its tensors: one row an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import torch
from gguf import MODEL_ARCH
from gguf import GGMLQuantizationType as Quantization
from torch import Tensor

from demur.chat import ChatModel
from demur.errors import DemurError
from demur.exports.gguf_file import Part, always_tied

_QUERY_KEY = ("attn_q", "attn_k")
_ATTENTION = (*_QUERY_KEY, "attn_v")
_ALWAYS_TIED = ("gemma", "gemma2", "cohere", "cohere2")
"""Models whose files would not load with the head that they need, and not be safe without."""

_ALL = (*_ATTENTION, "attn_output", "ffn_gate", "ffn_up", "ffn_down")
_WINDOW_THETA = 10_000.0
_YARN = {
    "rope_type": "yarn",
    "beta_fast": 32,
    "beta_slow": 1,
    "attention_factor": None,
    "truncate": True,
}
"""The settings that llama.cpp takes for granted, as it does the one above."""


@dataclass(frozen=True)
class Architecture:
    """How llama.cpp runs one `model_type` of transformers.

    Attributes:
        kind: architecture in llama.cpp.
        activation: activation of the feed-forward block, the only one that llama.cpp computes.
        biased: tensors that may have a bias.
        interleaved: whether rotary halves lie in turns in a head's rows and not one behind the
            other, and `rope_freqs.weight` may scale them.
        norm_offset: number that llama.cpp expects to be added to the weights of norms.
        windows: period of the layers that see all tokens and not a window of them, for example 6
            for every sixth layer; 0 where there are no windows.
    """

    kind: MODEL_ARCH
    activation: str = "silu"
    biased: tuple[str, ...] = ()
    interleaved: bool = False
    norm_offset: float = 0.0
    windows: int = 0


_GELU = "gelu_pytorch_tanh"
ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(MODEL_ARCH.LLAMA, biased=_ALL, interleaved=True),
    "mistral": Architecture(MODEL_ARCH.LLAMA, interleaved=True),
    "qwen2": Architecture(MODEL_ARCH.QWEN2, biased=_ATTENTION),
    "qwen3": Architecture(MODEL_ARCH.QWEN3),
    "gemma3_text": Architecture(MODEL_ARCH.GEMMA3, _GELU, norm_offset=1.0, windows=6),
}


class Layout:
    """A model as its GGUF file describes and stores it.

    Raises:
        DemurError: demur cannot write such a model.
    """

    def __init__(self, model: ChatModel) -> None:
        self._name = model.name
        network: Any = model.engine.model
        self._config: Any = network.config
        self._rotary: Any = getattr(network.base_model, "rotary_emb", None)
        model_type = self._config.model_type
        if model_type in _ALWAYS_TIED:
            raise always_tied(model_type)
        if model_type not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise self._error(f"its architecture is {model_type} and not {known}")
        self._row = ARCHITECTURES[model_type]
        self._check()
        config = self._config
        self._names = gguf.get_tensor_name_map(self._row.kind, config.num_hidden_layers)

    @property
    def architecture(self) -> str:
        """Its name in GGUF files."""
        return str(gguf.MODEL_ARCH_NAMES[self._row.kind])

    def add_to(self, writer: Any, rows: int) -> None:
        """Write the metadata about the network.

        Args:
            writer: `GGUFWriter` to add to.
            rows: number of rows of the tables.
        """
        config = self._config
        window = getattr(config, "sliding_window", None)
        context = config.max_position_embeddings
        if window and self._row.windows:
            writer.add_sliding_window(window)
        elif window:
            # llama.cpp lets every token see all others here: the same up to the window's length.
            context = min(context, window)
        writer.add_context_length(context)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(self._head)
        writer.add_value_length(self._head)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_vocab_size(rows)
        for cap, add in (
            ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
            ("final_logit_softcapping", writer.add_final_logit_softcapping),
        ):
            if getattr(config, cap, None) is not None:
                add(getattr(config, cap))
        self._add_rope(writer)

    def extra_parts(self) -> list[Part]:
        """Tensors that the folder does not have: where need be, what frequencies are divided by."""
        if self._rope["rope_type"] != "llama3":
            return []
        factors = (self._frequencies() / self._rotary.inv_freq.cpu().double()).float()
        return [Part("rope_freqs.weight", Quantization.F32, tuple(factors.shape), factors.numpy)]

    def stored(self, name: str) -> str | None:
        """The name in the file of one of the folder's tensors; None where it is left out.

        Raises:
            DemurError: llama.cpp does not know it.
        """
        if name.endswith("rotary_emb.inv_freq"):
            return None  # old folders store it though it follows from the settings
        found = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
        stem, _, suffix = (found or "").rpartition(".")
        if not found or (suffix == "bias" and stem.rpartition(".")[2] not in self._row.biased):
            raise self._error(f"llama.cpp has no place for its tensor {name}")
        return str(found)

    def converted(self, stored: str, tensor: Tensor) -> Tensor:
        """A tensor's numbers in the order and with the offset that the file has, float32.

        Args:
            stored: name of the tensor in the GGUF file.
            tensor: tensor as the model folder has it.
        """
        tensor = tensor.float()
        stem = stored.rpartition(".")[0].rpartition(".")[2]
        if stem.endswith("norm"):
            return tensor + self._row.norm_offset
        if self._row.interleaved and stem in _QUERY_KEY:
            halves = tensor.reshape(-1, 2, self._head // 2, *tensor.shape[1:])
            turns: Tensor = halves.transpose(1, 2).reshape(tensor.shape)
            return turns
        return tensor

    @property
    def _head(self) -> int:
        """The width of an attention head."""
        config = self._config
        given = getattr(config, "head_dim", None)
        return int(given or config.hidden_size // config.num_attention_heads)

    @property
    def _rope(self) -> dict[str, Any]:
        """The settings of the rotary positions of layers that see all tokens."""
        settings = self._config.rope_parameters
        return dict(settings.get("full_attention", settings))

    def _frequencies(self) -> Tensor:
        """The rotary frequencies (head / 2,) before any scaling."""
        exponents = torch.arange(0, self._head, 2, dtype=torch.float64) / self._head
        return torch.pow(float(self._rope["rope_theta"]), -exponents)

    def _add_rope(self, writer: Any) -> None:
        rope = self._rope
        writer.add_rope_dimension_count(self._head)
        writer.add_rope_freq_base(rope["rope_theta"])
        if rope["rope_type"] in ("linear", "yarn"):
            writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
            writer.add_rope_scaling_factor(rope["factor"])
        if rope["rope_type"] == "yarn":
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])

    def _check(self) -> None:
        """Refuse what llama.cpp would compute otherwise.

        Raises:
            DemurError: there is such a thing.
        """
        config, row = self._config, self._row
        activation = getattr(config, "hidden_activation", None) or config.hidden_act
        if activation != row.activation:
            raise self._error(f"llama.cpp computes {row.activation} and not {activation} for it")
        if getattr(config, "quantization_config", None) is not None:
            raise self._error("its weights are quantized")
        self._check_rope()
        if row.windows:
            layers = [
                "sliding_attention" if layer % row.windows else "full_attention"
                for layer in range(1, config.num_hidden_layers + 1)
            ]
            if list(config.layer_types) != layers:
                raise self._error("its windows lie in other layers than llama.cpp has them")
        if getattr(config, "query_pre_attn_scalar", self._head) != self._head:
            raise self._error("llama.cpp scales its attention otherwise")

    def _check_rope(self) -> None:
        rope, rotary = self._rope, self._rotary
        kind, factor = rope["rope_type"], 1.0
        if kind == "linear":
            factor = rope["factor"]
        elif kind == "yarn":
            usual = all(rope.get(key, value) == value for key, value in _YARN.items())
            if usual and not {"mscale", "mscale_all_dim"} & set(rope):
                return
        elif kind == "llama3" and self._row.interleaved:
            return
        windowed = self._config.rope_parameters.get("sliding_attention")
        if windowed is not None and windowed.get("rope_theta") != _WINDOW_THETA:
            raise self._error("its windows have other rotary positions than llama.cpp gives them")
        found = getattr(rotary, "inv_freq", getattr(rotary, "full_attention_inv_freq", None))
        wanted = self._frequencies() / factor
        if (
            kind not in ("default", "linear")
            or found is None
            or found.shape != wanted.shape
            or not torch.allclose(found.cpu().double(), wanted, rtol=1e-4)
        ):
            raise self._error(f"its rotary positions are scaled by {kind}")

    def _error(self, reason: str) -> DemurError:
        return DemurError(
            f"{self._name} cannot become a GGUF file here, for {reason}: export to transformers "
            "and convert that folder with llama.cpp's convert_hf_to_gguf.py."
        )
