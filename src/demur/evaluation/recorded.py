"""What an evaluation writes down of its inputs, so that other ones are noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from demur.evaluation.choices import NONE, TestSet
from demur.prompts import SafetyPrompt


def recorded_sets(sets: Sequence[TestSet]) -> list[dict[str, Any]]:
    """The query sets, with fingerprints of what they hold."""
    return [
        {
            "name": test_set.name,
            "queries": test_set.queries.fingerprint,
            "categories": _sha256(json.dumps(test_set.categories).encode()),
        }
        for test_set in sets
    ]


def recorded_prompt(prompt: SafetyPrompt | None) -> dict[str, Any]:
    """A safety prompt: its text, and a fingerprint of its embeddings."""
    if prompt is None:
        return {"name": NONE, "text": None, "embeddings": None}
    rows = None if prompt.embeddings is None else prompt.embeddings.numpy().tobytes()
    return {
        "name": prompt.name,
        "text": prompt.text,
        "embeddings": None if rows is None else _sha256(rows),
    }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
