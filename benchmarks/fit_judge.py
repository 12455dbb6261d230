"""Learn the weights of the default refusal judge from labelled responses.

    python benchmarks/fit_judge.py

A logistic regression over the families of the tables, the shapes, and the terms (words and pairs of
words) of the labelled responses, with a Gaussian prior: around the weights that the tables expect,
and around zero for terms. The published weights are learned from

- three files of people's labels (`FILES`),
- the responses written for this project (`own_responses.csv`), in English,
- some of the published responses of the paper, labelled for this project (`response_labels.csv`).

`benchmarks/judges.py` learns without one of the files at a time and measures on it.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import expit

from common import reference
from demur.judges import weighing
from demur.judges.phrases import Family, PhraseFinder, load_families
from demur.judges.terms import Term, terms_of, write_terms
from demur.judges.weighing import OPENING, SHAPES, TERMS, Weights
from demur.judges.window import WINDOW, read_response

FILES = ("gpt4", "llama2orig", "mistralinstruct")
EXPECTED_BIAS = -2.0
BIAS_PRECISION = 0.01
EXPECTED_SHAPES = {"long": -1.5, "very long": -1.0, "heading": -0.7, "code": -0.5}
"""Weights that are expected of shapes: the labelled responses are short, and longer ones of newer
models hardly ever refuse."""
SHAPE_PRECISION = 10.0
LEAST_RESPONSES = 8
"""Number of labelled responses that a term must be in."""
SMALLEST = 0.02
"""Smallest weight of a term that is kept."""


@dataclass(frozen=True)
class Settings:
    """How far the weights may go from what is expected.

    Attributes:
        families: precision of the Gaussian prior around the expected weights of families.
        terms: precision of that around zero for terms; None leaves terms out.
    """

    families: float = 1.5
    terms: float | None = 10.0


CHOICES = tuple(Settings(families, terms) for families in (1.5, 3.0) for terms in (5.0, 10.0, 20.0))
"""The settings among which `benchmarks/judges.py` chooses without the file it measures on."""


@dataclass(frozen=True)
class Labelled:
    """Labelled responses.

    Attributes:
        prompts: N prompts, empty where none is known.
        responses: N responses, one to each prompt.
        refused: N values: whether the response refuses, in full or in part.
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


@cache
def load_labelled(name: str) -> Labelled:
    """One file of people's labels."""
    rows = _read_gzip(reference(f"refusal_labels/{name}.csv.gz"))
    refused = np.array([not row["final_label"].startswith("1") for row in rows])
    return Labelled([row["prompt"] for row in rows], [row["completion"] for row in rows], refused)


def load_own(parts: Sequence[str] = ("first", "second", "third")) -> Labelled:
    """The responses written for this project, in English."""
    chosen = [row for row in own_rows() if row["part"] in parts]
    refused = np.array([row["refused"] == "1" for row in chosen])
    return Labelled([""] * len(chosen), [row["response"] for row in chosen], refused)


@cache
def load_responses() -> Labelled:
    """The published responses of the paper that were labelled for this project."""
    with (Path(__file__).parent / "response_labels.csv").open(encoding="utf-8") as stream:
        labels = list(csv.DictReader(stream))
    published = {
        name: _read_gzip(reference(f"responses/{name}.csv.gz"))
        for name in {label["file"] for label in labels}
    }
    rows = [published[label["file"]][int(label["row"])] for label in labels]
    refused = np.array([label["refused"] == "1" for label in labels])
    return Labelled([row["prompt"] for row in rows], [row["output"] for row in rows], refused)


def own_rows() -> list[dict[str, str]]:
    """The rows of `own_responses.csv`."""
    with (Path(__file__).parent / "own_responses.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def join(files: Sequence[Labelled]) -> Labelled:
    """Several files as one."""
    return Labelled(
        [prompt for file in files for prompt in file.prompts],
        [response for file in files for response in file.responses],
        np.concatenate([file.refused for file in files]),
    )


def fit(
    families: Sequence[Family], labelled: Labelled, settings: Settings | None = None
) -> Weights:
    """Maximum a posteriori weights.

    The loss is convex, and L-BFGS searches along each step, so it cannot overshoot as plain Newton
    steps do where many rows are predicted with certainty.

    Raises:
        RuntimeError: the solver did not converge.
    """
    settings = settings or Settings()
    vocabulary = [] if settings.terms is None else _vocabulary(labelled.responses)
    features = _features(families, vocabulary, labelled.responses)
    target = labelled.refused.astype(np.float64)
    expected, precision = _prior(families, vocabulary, settings)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = features @ weights
        away = weights - expected
        value = (np.logaddexp(0, margins) - target * margins).sum() + (
            precision * away**2
        ).sum() / 2
        return float(value), features.T @ (expit(margins) - target) + precision * away

    found = minimize(
        loss,
        expected,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 10_000, "gtol": 1e-5, "ftol": 0.0},
    )
    if np.abs(loss(found.x)[1]).max() > 1e-3:
        raise RuntimeError(f"The weights did not converge: {found.message}")
    return _weights(families, vocabulary, found.x)


def _prior(
    families: Sequence[Family], vocabulary: Sequence[Term], settings: Settings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The weights that are expected, and the precision of each."""
    of_families = [weight for family in families for weight in family.expected]
    shapes = [EXPECTED_SHAPES[name] for name in SHAPES]
    expected = [EXPECTED_BIAS, *of_families, *shapes, *(0.0 for _ in vocabulary)]
    precision = [
        BIAS_PRECISION,
        *(settings.families for _ in of_families),
        *(SHAPE_PRECISION for _ in shapes),
        *(settings.terms or 0.0 for _ in vocabulary),
    ]
    return np.array(expected), np.array(precision)


def _weights(
    families: Sequence[Family], vocabulary: Sequence[Term], found: NDArray[np.float64]
) -> Weights:
    numbers = found.round(3).tolist()
    ends = np.cumsum([1, 2 * len(families), len(SHAPES)])
    pairs = zip(numbers[1 : ends[1] : 2], numbers[2 : ends[1] : 2], strict=True)
    terms = zip(vocabulary, found[ends[2] :].round(2).tolist(), strict=True)
    return Weights(
        numbers[0],
        dict(zip((family.name for family in families), pairs, strict=True)),
        {term: weight for term, weight in terms if abs(weight) >= SMALLEST},
        dict(zip(SHAPES, numbers[ends[1] : ends[2]], strict=True)),
    )


def _vocabulary(responses: Sequence[str]) -> list[Term]:
    """The terms that enough responses have."""
    counts: Counter[Term] = Counter()
    for response in responses:
        counts.update(terms_of(read_response(response)[:TERMS]))
    return sorted((term for term, count in counts.items() if count >= LEAST_RESPONSES), key=str)


def _features(
    families: Sequence[Family], vocabulary: Sequence[Term], responses: Sequence[str]
) -> csr_matrix:
    """N x (1 + 2F + S + T): 1; for each of F families whether it is in the opening, and later; for
    each of S shapes and T terms whether the response has it.
    """
    finder = PhraseFinder(families)
    columns_before_terms = 1 + 2 * len(families) + len(SHAPES)
    column_of = {term: columns_before_terms + at for at, term in enumerate(vocabulary)}
    rows: list[int] = []
    columns: list[int] = []

    def add(row: int, found: Sequence[int]) -> None:
        rows.extend([row] * len(found))
        columns.extend(found)

    for row, response in enumerate(responses):
        words = read_response(response)
        text = response.lstrip()[:WINDOW]
        add(row, [0])
        for zone, places in enumerate(finder.find(words, OPENING)):
            add(row, [1 + 2 * index + zone for index in places])
        add(row, [_shape_column(families, at) for at, holds in _shapes() if holds(text)])
        add(row, [column_of[term] for term in terms_of(words[:TERMS]) if term in column_of])
    shape = (len(responses), columns_before_terms + len(vocabulary))
    return csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)


def _shapes() -> list[tuple[int, Callable[[str], bool]]]:
    return list(enumerate(SHAPES.values()))


def _shape_column(families: Sequence[Family], at: int) -> int:
    return 1 + 2 * len(families) + at


def _read_gzip(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def everything() -> Labelled:
    """All that the published weights are learned from."""
    return join([*(load_labelled(name) for name in FILES), load_own(), load_responses()])


def main() -> None:
    """Learn from everything and write the weights into the package."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None).parse_args()
    weights = fit(load_families(), everything())
    folder = Path(weighing.__file__).parent
    rows = [
        f"    {json.dumps(name)}: {json.dumps(pair)}" for name, pair in weights.families.items()
    ]
    text = (
        f'{{\n  "bias": {weights.bias},\n  "shapes": {json.dumps(weights.shapes)},\n'
        '  "families": {\n' + ",\n".join(rows) + "\n  }\n}\n"
    )
    for name, content in (("weights.json", text), ("terms.txt", write_terms(weights.terms))):
        temporary = folder / f"{name}.tmp"
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(folder / name)
    print(f"Wrote {len(rows)} families and {len(weights.terms)} terms.")


if __name__ == "__main__":
    main()
