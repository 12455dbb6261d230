"""What a model may be called. Without torch, so that a misspelled name is found at once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from demur.chat.catalog import CATALOG
from demur.errors import DemurError, did_you_mean
from demur.hub import HubModel

MOST_BESIDE = 1000
"""Files of a folder among which a misspelled one is looked for."""


def model_place(spec: str | Path) -> Path | HubModel | None:
    """Where a model lies: a file or a folder, or a name on the hub; None for one of the catalog.

    Args:
        spec: name or path.

    Raises:
        DemurError: it is none of them.
    """
    text = str(spec)
    if isinstance(spec, str) and text in CATALOG:
        return None
    path = Path(spec).expanduser()
    if _is(path.is_dir) or _is(path.is_file):
        return path
    on_hub = None if isinstance(spec, Path) else HubModel.parse(text)
    if on_hub is None:
        raise DemurError(
            f"{text!r:.200} is neither a catalog model ({', '.join(CATALOG)}), a file, a folder "
            f"nor a hub name (organisation/model){_nearest(text)}: check the spelling."
        )
    return on_hub


def _is(kind: Callable[[], bool]) -> bool:
    """Whether a path is of a kind; False for a name that no file can have."""
    try:
        return kind()
    except (OSError, ValueError):
        return False


def _nearest(text: str) -> str:
    """A hint at the catalog model, or the model beside a path that is not there, of such a name."""
    path = Path(text).expanduser()
    try:
        beside = [path.with_name(each.name) for each in islice(path.parent.iterdir(), MOST_BESIDE)]
    except (OSError, ValueError):
        beside = []
    models = [each for each in beside if each.suffix == ".gguf" or _is_model_folder(each)]
    return did_you_mean(text, [*CATALOG, *map(str, models)])


def _is_model_folder(path: Path) -> bool:
    return (path / "config.json").is_file()
