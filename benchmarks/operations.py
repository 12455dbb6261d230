"""How many operations a training step dispatches in each layer, counted by torch's profiler.

    python benchmarks/operations.py [--queries 8] [--targets 0]

Each operation is a call into torch, most of them a kernel on a GPU, which waits for them where they
are small. The model has random weights and the shape of a small Qwen2. Its steps are counted at two
numbers of layers: the difference is what a layer costs, whatever happens outside of the layers.
Beside demur's step stands the plain way of transformers: one padded batch, the hidden state of the
last position, no logits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from common import write_results
from demur.chat.engine import Engine, Inputs, Read

LAYERS = (4, 8)
VIEWS = {"as_strided", "detach", "expand", "permute", "reshape", "select", "slice", "split"}
VIEWS |= {"t", "transpose", "unbind", "unsqueeze", "squeeze", "view", "_unsafe_view", "alias", "mT"}
VIEWS |= {"numpy_T", "flatten", "narrow", "contiguous", "to", "result_type", "chunk", "expand_as"}
VIEWS |= {"split_with_sizes", "_reshape_alias", "empty", "empty_like", "lift_fresh", "unflatten"}
VIEWS |= {"empty_strided", "detach_", "resize_", "matmul", "linear", "dropout", "new_empty"}
"""Operations that compute nothing themselves."""


def qwen2(layers: int) -> PreTrainedModel:
    """A random model of Qwen2's shape, frozen."""
    config = Qwen2Config(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    model: PreTrainedModel = Qwen2ForCausalLM(config)
    model.eval().requires_grad_(False)
    return model


def conversations(queries: int, targets: int) -> Inputs:
    """Conversations behind a prompt of 32 rows, with so many continuations of 4 tokens each."""
    generator = torch.Generator().manual_seed(0)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(512, (length,), generator=generator).tolist())

    suffixes = tuple(tokens(8 + 3 * (row % 5)) for row in range(queries))
    some = tuple(tuple(tokens(4) for _ in range(targets)) for _ in range(queries))
    return Inputs(tokens(40), suffixes, (4, 36), some)


def demur_step(model: PreTrainedModel, inputs: Inputs) -> Callable[[], Any]:
    """A step through the engine."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")))
    engine = Engine(model, tokenizer)
    prompt = torch.randn(32, 128, generator=torch.Generator().manual_seed(1))

    def loss(read: Read, _places: list[int]) -> Tensor:
        return read.representations.square().sum() - read.token_values.sum()

    return lambda: engine.prompt_gradient(inputs, prompt, loss)


def plain_step(model: PreTrainedModel, inputs: Inputs) -> Callable[[], Any]:
    """A step on one padded batch of whole conversations; targets are left out."""
    sequences = [torch.tensor(inputs.prefix + suffix) for suffix in inputs.suffixes]
    ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    lengths = torch.tensor([len(one) for one in sequences])
    mask = (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()
    rows = torch.arange(len(ids))
    body = model.base_model
    prompt = torch.randn(32, 128, generator=torch.Generator().manual_seed(1))

    def step() -> None:
        leaf = prompt.clone().requires_grad_()
        embeddings = model.get_input_embeddings()(ids)
        opening = leaf[None].expand(len(ids), -1, -1)
        embeddings = torch.cat([embeddings[:, :4], opening, embeddings[:, 36:]], dim=1)
        output = body(inputs_embeds=embeddings, attention_mask=mask, use_cache=False)
        loss = output.last_hidden_state[rows, lengths - 1].square().sum()
        torch.autograd.backward(loss)

    return step


def count(step: Callable[[], Any]) -> tuple[int, int]:
    """Operations that a step dispatches, and how many of them compute something."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    names = [event.name for event in profiler.events() if event.name.startswith("aten::")]
    return len(names), sum(name.removeprefix("aten::") not in VIEWS for name in names)


def main() -> None:
    """Count, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--queries", type=int, nargs="+", default=[8, 80])
    parser.add_argument("--targets", type=int, default=0, help="continuations of each query")
    parser.add_argument("--name", default="operations", help="of the results file")
    arguments = parser.parse_args()
    table = Table("step", "queries", "a layer", "of them computing", "outside of layers")
    results: list[dict[str, Any]] = []
    ways = {"demur": demur_step, "transformers": plain_step}
    for queries in arguments.queries:
        inputs = conversations(queries, arguments.targets)
        for way, make in ways.items():
            counts = [count(make(qwen2(layers), inputs)) for layers in LAYERS]
            more = LAYERS[1] - LAYERS[0]
            a_layer, computing = ((b - a) / more for a, b in zip(*counts, strict=True))
            outside = counts[0][0] - LAYERS[0] * a_layer
            table.add_row(way, f"{queries}", f"{a_layer:g}", f"{computing:g}", f"{outside:g}")
            results.append(
                {
                    "way": way,
                    "queries": queries,
                    "targets": arguments.targets,
                    "operations a layer": a_layer,
                    "computing a layer": computing,
                    "operations outside of layers": outside,
                }
            )
    Console().print(table)
    write_results(arguments.name, {"steps": results})


if __name__ == "__main__":
    main()
