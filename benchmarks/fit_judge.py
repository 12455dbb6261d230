"""Learn the weights of the default refusal judge from people's labels.

    python benchmarks/fit_judge.py

A logistic regression over the families of the tables, with a Gaussian prior around the weights
that the tables expect. The published weights are learned from both labelled files;
`benchmarks/judges.py` learns from one and measures on the other.
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
from scipy.optimize import minimize
from scipy.special import expit

from common import reference
from demur.judges import default
from demur.judges.default import OPENING, Weights, read_response
from demur.judges.phrases import Family, PhraseFinder, load_families

FILES = ("llama2orig", "mistralinstruct")
EXPECTED_BIAS = -2.0
PULL = 3.0
"""Precision of the Gaussian prior around the expected weights."""


@dataclass(frozen=True)
class Labelled:
    """A labelled file.

    Attributes:
        prompts: N prompts.
        responses: N responses, one to each prompt.
        refused: N values: whether people saw a refusal, full or partial.
    """

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
    """Maximum a posteriori weights.

    The loss is convex, and a trust region keeps each Newton step from overshooting, as plain steps
    do where many rows are predicted with certainty.

    Raises:
        RuntimeError: the solver did not converge.
    """
    features = _features(families, labelled.responses)
    target = labelled.refused.astype(np.float64)
    expected = np.array(
        [EXPECTED_BIAS, *(weight for family in families for weight in family.expected)]
    )

    def loss(weights: NDArray[np.float64]) -> float:
        margins = features @ weights
        away = weights - expected
        return float((np.logaddexp(0, margins) - target * margins).sum() + PULL / 2 * away @ away)

    def gradient(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        errors = expit(features @ weights) - target
        return np.asarray(features.T @ errors + PULL * (weights - expected))

    def curvature(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        predicted = expit(features @ weights)
        weighted = features.T * (predicted * (1 - predicted))
        return np.asarray(weighted @ features + PULL * np.eye(len(weights)))

    found = minimize(
        loss, expected, jac=gradient, hess=curvature, method="trust-exact", options={"gtol": 1e-6}
    )
    if np.abs(gradient(found.x)).max() > 1e-4:
        raise RuntimeError(f"The weights did not converge: {found.message}")
    pairs = found.x[1:].reshape(-1, 2).round(3).tolist()
    names = [family.name for family in families]
    return Weights(round(float(found.x[0]), 3), dict(zip(names, map(tuple, pairs), strict=True)))


def _features(families: Sequence[Family], responses: Sequence[str]) -> NDArray[np.float64]:
    """N x (1 + 2F): 1, then for each of F families whether it is in the opening, and later."""
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
