"""The prompts that are served, each under a name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from demur.chat.embeddings import encode
from demur.errors import DemurError
from demur.exports.base import Subject
from demur.prompts import trained_behind

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RESERVED = ("v1", "health", "metrics")


@dataclass(frozen=True)
class ServedPrompt:
    """A trained prompt under the name by which users choose it.

    Attributes:
        name: name of the model that users ask for, and of the route.
        data: rows as vLLM takes them, in base64.
        rows: number of rows.
        trained_on: name of the model that the prompt was trained on; empty where it is not known.
        expects_text: whether it was trained behind an application's own system text.
    """

    name: str
    data: bytes
    rows: int
    trained_on: str = ""
    expects_text: bool = False


def served_prompts(sources: Sequence[str], names: Sequence[str] = ()) -> dict[str, ServedPrompt]:
    """Load the prompts that are to be served.

    Args:
        sources: folders of finished runs or of saved trained prompts, or names on the hub.
        names: a name for each; where there are none, those of the prompts.

    Returns:
        The prompts by their names.

    Raises:
        DemurError: a prompt cannot be loaded or is text, or names do not fit.
    """
    if names and len(names) != len(sources):
        raise DemurError(
            f"The number of names, {len(names)}, is not that of the prompts, {len(sources)}: give "
            "--name once for each prompt, in their order."
        )
    found: dict[str, ServedPrompt] = {}
    for row, source in enumerate(sources):
        subject = Subject.of(source)
        name = names[row] if names else subject.prompt.name
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise DemurError(
                f"{name!r:.120} cannot be the name of a model that is served: give --name with "
                "letters, digits, dots, hyphens and underscores, up to 100 of them."
            )
        if name in found:
            raise DemurError(f"Two prompts are called {name!r}: give --name once for each prompt.")
        rows = subject.prompt.embeddings
        assert rows is not None
        trained_on = "" if subject.model is None else subject.model.name
        data, behind = encode(rows).encode(), trained_behind(source) is not None
        found[name] = ServedPrompt(name, data, len(rows), trained_on, behind)
    return found
