"""Read queries from a dataset on the Hugging Face hub, through the optional `datasets` package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from demur.errors import DemurError
from demur.queries.messages import check_query
from demur.queries.tables import check_column
from demur.records import Query

HUB_PREFIX = "hf:"

# A split may be a slice with a colon in it, as in `train[:100]`.
_HUB_SPEC = re.compile(
    r"hf:(?P<name>[^@:\s]+)(?:@(?P<split>[^:\[]+(?:\[[^\]]*\])?))?(?::(?P<column>.+))?"
)


def read_hub(spec: str) -> tuple[str, Sequence[Query]]:
    """The dataset's name (as in `spec`, less its prefix) and the queries in the named column.

    Raises:
        DemurError: the spec is malformed, `datasets` is not installed, the dataset cannot be
            loaded, it has several splits and none is named, or the column is missing or
            holds something other than texts and conversations.
    """
    match = _HUB_SPEC.fullmatch(spec)
    if match is None:
        raise DemurError(
            f"Cannot read {spec!r}: write hf:ORG/NAME:COLUMN or hf:ORG/NAME@SPLIT:COLUMN."
        )
    name, split, column = match["name"], match["split"], match["column"]
    dataset = _load(name, split)
    source = f"Dataset {name!r}"
    wanted = check_column(source, column, list(dataset.column_names))
    queries = [
        check_query(value, wanted, f"{source} row {number}")
        for number, value in enumerate(dataset[wanted], start=1)
    ]
    return spec.removeprefix(HUB_PREFIX), queries


def _load(name: str, split: str | None) -> Any:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DemurError(
            "Queries from the hub need the datasets package: pip install 'demur[datasets]'."
        ) from error
    try:
        loaded = load_dataset(name, split=split)
    except Exception as error:  # the package raises a dozen kinds, for the network as for the name
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DemurError(f"Cannot load dataset {name!r}: {reason}") from error
    if split is not None:
        return loaded
    splits = list(loaded)
    if "train" in splits:
        return loaded["train"]
    if len(splits) == 1:
        return loaded[splits[0]]
    raise DemurError(
        f"Dataset {name!r} has the splits {', '.join(splits)}: "
        f"choose one with hf:{name}@SPLIT:COLUMN."
    )
