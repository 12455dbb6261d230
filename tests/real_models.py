"""Small real models, fetched through the catalog."""

from __future__ import annotations

from typing import Any

import pytest

from demur import ChatModel, DemurError
from demur.chat.catalog import DEFAULT_MODEL
from demur.chat.download import pull


def load_real_model(name: str = DEFAULT_MODEL, **options: Any) -> ChatModel:
    """A model of the catalog; the test is skipped where it cannot be fetched."""
    try:
        pull(name)
    except DemurError as error:
        pytest.skip(f"{name} cannot be fetched: {error}")
    return ChatModel.load(name, **options)
