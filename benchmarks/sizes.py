"""What a training step asks of a card, by the laws of `docs/engine.md`: estimated, not run.

    python benchmarks/sizes.py [--shape qwen2.5-7b] [--dispatch 5e-6] [--rate 5e14]

Memory: the weights, and what `demur.chat.engine.memory` reckons for the activations, by which
batches are chosen. Time: the larger of what the calls into torch take, one after the other, and
what the matrix products take. Both rates belong to a machine; the defaults are rough figures of an
H200.
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

OPERATIONS, OUTSIDE = 384, 370
"""Operations of a layer and outside of layers (`operations.py`)."""

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
    parser.add_argument("--dispatch", type=float, default=5e-6, help="seconds of a call into torch")
    parser.add_argument("--rate", type=float, default=5e14, help="operations a second, in bfloat16")
    arguments = parser.parse_args()
    table = Table("shape", "weights", "4-bit", "queries", "step, GB", "step, ms", title="Estimate")
    for shape in arguments.shape:
        model = empty(shape)
        count = sum(weight.numel() for weight in model.parameters())
        layers = int(model.config.num_hidden_layers)
        for queries in (8, 50):
            inputs = Inputs((0,) * PROMPT, ((0,) * QUERY,) * queries, None)
            size = step_bytes(model, inputs, range(queries))
            calls = arguments.dispatch * (OPERATIONS * layers + OUTSIDE)
            products = 4 * count * (PROMPT + queries * QUERY) / arguments.rate
            table.add_row(
                shape,
                f"{2e-9 * count:.1f} GB",
                f"{0.7e-9 * count:.1f} GB",
                str(queries),
                f"{size / 1e9:.1f}",
                f"{1000 * max(calls, products):.0f}",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
