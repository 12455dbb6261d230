"""Learn the weights of the default refusal judge from people's labels.

    python benchmarks/fit_judge.py

Logistic regression over the families of the tables, drawn towards the weights that the table
expects. The published weights are learned from both labelled files; `benchmarks/judges.py` learns
from one and measures on the other.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common import reference
from demur.judges import default
from demur.judges.default import OPENING, Weights, read_response
from demur.judges.phrases import Family, PhraseFinder, load_families

FILES = ("llama2orig", "mistralinstruct")
EXPECTED_BIAS = -2.0
PULL = 3.0
"""The precision of the Gaussian prior around the expected weights."""


@dataclass(frozen=True)
class Labelled:
    """A labelled file: N prompts, responses and whether people saw a refusal, full or partial."""

    prompts: list[str]
    responses: list[str]
    refused: NDArray[np.bool_]

    def select(self, rows: NDArray[np.intp]) -> Labelled:
        """Some of its rows."""
        return Labelled(
            [self.prompts[row] for row in rows],
            [self.responses[row] for row in rows],
            self.refused[rows],
        )


def load_labelled(name: str) -> Labelled:
    """One file of people's labels."""
    path = reference(f"refusal_labels/{name}.csv.gz")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    refused = np.array([not row["final_label"].startswith("1") for row in rows])
    return Labelled([row["prompt"] for row in rows], [row["completion"] for row in rows], refused)


def join(files: Sequence[Labelled]) -> Labelled:
    """Several files as one."""
    return Labelled(
        [prompt for file in files for prompt in file.prompts],
        [response for file in files for response in file.responses],
        np.concatenate([file.refused for file in files]),
    )


def fit(families: Sequence[Family], labelled: Labelled) -> Weights:
    """Maximum a posteriori weights, by Newton's method."""
    features = _features(families, labelled.responses)
    target = labelled.refused.astype(np.float64)
    expected = np.array(
        [EXPECTED_BIAS, *(weight for family in families for weight in family.expected)]
    )
    weights = expected.copy()
    for _ in range(50):
        predicted = 1 / (1 + np.exp(-features @ weights))
        gradient = features.T @ (predicted - target) + PULL * (weights - expected)
        curvature = (features.T * (predicted * (1 - predicted))) @ features
        step = np.linalg.solve(curvature + PULL * np.eye(len(weights)), gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-8:
            break
    pairs = weights[1:].reshape(-1, 2).round(3).tolist()
    names = [family.name for family in families]
    return Weights(round(float(weights[0]), 3), dict(zip(names, map(tuple, pairs), strict=True)))


def _features(families: Sequence[Family], responses: Sequence[str]) -> NDArray[np.float64]:
    """N x (1 + 2F): one, then for every family whether it is in the opening, and later."""
    finder = PhraseFinder(families)
    features = np.zeros((len(responses), 1 + 2 * len(families)))
    features[:, 0] = 1
    for row, response in enumerate(responses):
        for zone, found in enumerate(finder.find(read_response(response), OPENING)):
            features[row, [1 + 2 * index + zone for index in found]] = 1
    return features


def main() -> None:
    """Learn from both files and write the weights into the package."""
    weights = fit(load_families(), join([load_labelled(name) for name in FILES]))
    path = Path(default.__file__).with_name("weights.json")
    rows = [
        f"    {json.dumps(name)}: {json.dumps(pair)}" for name, pair in weights.families.items()
    ]
    text = f'{{\n  "bias": {weights.bias},\n  "families": {{\n' + ",\n".join(rows) + "\n  }\n}\n"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    print(f"Wrote {path.name}: {len(rows)} families.")


if __name__ == "__main__":
    main()
