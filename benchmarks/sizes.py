"""What a training step asks of a card, by the laws of `docs/engine.md`: estimated, not run.

    python benchmarks/sizes.py [--shape qwen2.5-7b] [--layer 5.9e-4] [--rate 3.39e14]

Memory: the weights, and what `demur.chat.engine.memory` reckons for the activations, by which
batches are chosen. Time: what the small kernels of a layer take, however few the tokens, and what
the matrix products take. Both belong to a card; the defaults fit the recorded steps of a 7B on an
H200 (`gpu.py`).
"""

from __future__ import annotations

import argparse

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from demur.chat.engine import Inputs
from demur.chat.engine.memory import step_bytes
from engine_shapes import SHAPES

PROMPT, QUERY = 109, 25
"""Tokens of the shared opening and of a query."""


def empty(shape: str) -> PreTrainedModel:
    """A model without memory behind its weights."""
    with torch.device("meta"):
        config = AutoConfig.for_model(**SHAPES[shape], max_position_embeddings=8192)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return model


def main() -> None:
    """Reckon and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    shapes = ("qwen2.5-0.5b", "qwen2.5-7b", "llama-3.1-70b")
    parser.add_argument("--shape", nargs="+", default=shapes, choices=sorted(SHAPES))
    parser.add_argument("--layer", type=float, default=5.9e-4, help="seconds of a layer beside")
    parser.add_argument("--rate", type=float, default=3.39e14, help="operations a second")
    arguments = parser.parse_args()
    table = Table("shape", "weights", "4-bit", "queries", "step, GB", "step, ms", title="Estimate")
    for shape in arguments.shape:
        model = empty(shape)
        count = sum(weight.numel() for weight in model.parameters())
        layers = int(model.config.num_hidden_layers)
        for queries in (8, 50):
            inputs = Inputs((0,) * PROMPT, ((0,) * QUERY,) * queries, None)
            size = step_bytes(model, inputs, range(queries))
            kernels = arguments.layer * layers
            products = 4 * count * (PROMPT + queries * QUERY) / arguments.rate
            table.add_row(
                shape,
                f"{2e-9 * count:.1f} GB",
                f"{0.7e-9 * count:.1f} GB",
                str(queries),
                f"{size / 1e9:.1f}",
                f"{1000 * (kernels + products):.0f}",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
