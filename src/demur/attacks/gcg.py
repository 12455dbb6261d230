"""GCG: a suffix is searched for each query and prompt with the gradient of the model.

The search is that of the package `nanogcg`. It runs on the model itself where there is no prompt or
one of text, and for a trained prompt on its export to `transformers`, which is removed afterwards.
What is found is then measured as every attack is.

Source: Zou, Wang, Carlini and others, "Universal and transferable adversarial attacks on aligned
language models", 2023, arXiv 2307.15043.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from demur.attacks.families.openings import AFFIRMATIVE
from demur.attacks.protocol import with_text
from demur.attacks.record import SUFFIXES
from demur.attacks.registry import GCG
from demur.attacks.settings import GcgSettings
from demur.chat import ChatModel
from demur.chat.engine.forward import embedding_table
from demur.chat.engine.shared_opening import SharedOpening
from demur.errors import DemurError
from demur.exports import export
from demur.plugins import describe_error
from demur.progress import Progress, Stage
from demur.prompts import Condition
from demur.records import (
    Queries,
    Query,
    damaged,
    fingerprint,
    history_of,
    identity_of,
    read_record,
    text_of,
    tools_before,
    write_record,
)
from demur.records.versions import version_of
from demur.temporary import temporary

TARGET = AFFIRMATIVE
"""The opening of an answer that suffixes are searched for; it has no content."""

_FORMAT = "attack suffix"
_PLACE = "{optim_str}"
"""Where nanogcg puts the suffix."""

_START = "x x x x x x x x x x x x x x x x x x x x"
_MOST_LIKELY = 256
_ON_A_PROCESSOR = 16
"""Candidates whose logits a processor holds at once."""

_WHOLE_TEXT = "{{ messages[0]['content'] }}"


@dataclass(frozen=True)
class Suffix:
    """What was found for one query under one condition.

    Attributes:
        key: fingerprint of all that it depends on.
        text: the suffix.
        loss: mean negative log-probability of the target behind it.
        steps: number of steps that were made.
    """

    key: str
    text: str
    loss: float
    steps: int


def require_nanogcg() -> None:
    """Check that nanogcg is installed.

    Raises:
        DemurError: it is not.
    """
    try:
        import nanogcg  # noqa: F401
    except ImportError as error:
        raise DemurError(
            f"The attack {GCG!r} needs the package nanogcg: run `pip install 'demur[gcg]'`."
        ) from error


def describe_search(name: str) -> str:
    """What the stage of a search is called.

    Args:
        name: name of the condition.
    """
    return f"Searching suffixes: {name}"


def attacked_by_suffixes(
    model: ChatModel,
    condition: Condition,
    name: str,
    queries: Queries,
    settings: GcgSettings,
    seed: int,
    folder: Path,
    progress: Progress,
) -> Queries:
    """Queries with the suffixes that were found for them under one condition.

    Each suffix is stored as soon as it is found, and is not searched again.

    Args:
        model: model that is attacked.
        condition: what stands before the queries.
        name: name of the condition; for people.
        queries: queries to attack.
        settings: the budget of the search.
        seed: seed of the search.
        folder: folder of the attacks.
        progress: receives a stage.

    Raises:
        DemurError: the search fails, or a trained prompt cannot be exported.
    """
    keys = [_key(model, condition, query, settings, seed) for query in queries.texts]
    files = [folder / SUFFIXES / f"{key[:16]}.json" for key in keys]
    found = {
        file: _stored(file, key) for file, key in zip(files, keys, strict=True) if file.exists()
    }
    missing = [
        each for each in zip(files, keys, queries.texts, strict=True) if each[0] not in found
    ]
    steps = settings.gcg_steps
    with progress.stage(describe_search(name), steps * len(files), "steps") as stage:
        stage.advance(steps * len(found))
        if missing:
            with _target(model, condition, folder, progress) as (target, seen):
                search = _Search(target, seen, settings)
                for file, key, query in missing:
                    suffix = search.find(query, key, _seed(seed, query), stage)
                    stage.advance(steps - suffix.steps)  # it may have ended early
                    (folder / SUFFIXES).mkdir(exist_ok=True)
                    write_record(file, suffix, _FORMAT)
                    found[file] = suffix
    return Queries(
        GCG,
        tuple(
            with_text(query, _with_suffix(query, found[file].text))
            for file, query in zip(files, queries.texts, strict=True)
        ),
        queries.labels,
        queries.categories,
    )


class _Search:
    """Searches suffixes for queries to one model under one condition.

    Args:
        model: model whose gradient is read.
        condition: what stands before the queries.
        settings: the budget.
    """

    def __init__(self, model: ChatModel, condition: Condition, settings: GcgSettings) -> None:
        import nanogcg.gcg as nano

        logging.getLogger("nanogcg").setLevel(logging.ERROR)
        self._model = model
        self._condition = condition
        network, tokenizer = model.engine.model, copy.copy(model.engine.tokenizer)
        # demur renders the whole conversation; nothing of it may pass a template again.
        tokenizer.chat_template = _WHOLE_TEXT
        rows = len(embedding_table(network))
        taken = set(tokenizer.added_tokens_decoder) | set(range(len(tokenizer), rows))
        unreadable = nano.get_nonascii_toks(tokenizer, device="cpu").tolist()
        left_out = torch.tensor(sorted({int(one) for one in (*taken, *unreadable)}))
        allowed = rows - len(left_out)
        on_processor = network.device.type == "cpu"
        config = nano.GCGConfig(
            num_steps=settings.gcg_steps,
            optim_str_init=_START,
            search_width=settings.gcg_width,
            batch_size=min(settings.gcg_width, _ON_A_PROCESSOR) if on_processor else None,
            topk=max(1, min(_MOST_LIKELY, allowed)),
            early_stop=True,
            use_prefix_cache=model.engine.shares_prefix,
            verbosity="ERROR",
        )
        self._nano = nano
        # nanogcg was made for the caches of older versions of transformers.
        asked = SharedOpening(network) if config.use_prefix_cache else network
        self._gcg: Any = nano.GCG(asked, tokenizer, config)
        self._gcg.not_allowed_ids = left_out.to(network.device)

    def find(self, query: Query, key: str, seed: int, stage: Stage) -> Suffix:
        """The best suffix within the budget.

        Args:
            query: query to attack.
            key: fingerprint of all that the suffix depends on.
            seed: seed of the candidates.
            stage: advanced by one for each step.

        Raises:
            DemurError: the query cannot be rendered, or the search fails.
        """
        text = self._rendered(query)
        self._gcg.stop_flag = False
        cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
        with torch.random.fork_rng(devices=cuda), _steps_shown(self._nano, stage):
            torch.manual_seed(seed)
            try:
                result = self._gcg.run([{"role": "user", "content": text}], TARGET)
            except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
                raise DemurError(
                    f"nanogcg failed on this model ({describe_error(error)}): leave out "
                    f"--attack {GCG}."
                ) from error
        found = str(result.best_string), float(result.best_loss), len(result.losses)
        return Suffix(key, *found)

    def _rendered(self, query: Query) -> str:
        prompt = self._condition.safety_prompt
        text = self._model.renderer.render_text(
            _with_suffix(query, _PLACE),
            None if prompt is None else prompt.text,
            self._condition.system_prompt_for(query),
            history=history_of(query),
            tools=tools_before(query),
        )
        if text.count(_PLACE) != 1:
            raise DemurError(
                f"A conversation with {text_of(query)!r:.60} holds the text {_PLACE}, "
                "where nanogcg puts the suffix: leave that query out."
            )
        return text


@contextmanager
def _target(
    model: ChatModel, condition: Condition, folder: Path, progress: Progress
) -> Iterator[tuple[ChatModel, Condition]]:
    """The model whose gradient is read, and what stands before queries to it.

    A trained prompt is part of its export, where it needs no mention.
    """
    prompt = condition.safety_prompt
    if prompt is None or not prompt.is_trained:
        yield model, condition
        return
    with temporary(folder / "export", is_folder=True) as place:
        export(prompt, "transformers", place / "model", model=model, progress=progress)
        exported = ChatModel.load(
            place / "model",
            dtype=str(model.dtype).removeprefix("torch."),
            device=str(model.device),
            trust_remote_code=model.settings.trust_remote_code,
        )
        yield exported, Condition(None, condition.system_prompt)


@contextmanager
def _steps_shown(nano: Any, stage: Stage) -> Iterator[None]:
    """Show the steps of nanogcg on a stage, in place of the bar that it draws itself."""

    def shown(steps: Iterable[int]) -> Iterator[int]:
        for step in steps:
            yield step
            stage.advance()

    own, nano.tqdm = nano.tqdm, shown
    try:
        yield
    finally:
        nano.tqdm = own


def _stored(file: Path, key: str) -> Suffix:
    """A suffix that was found before.

    Raises:
        DemurError: the file is damaged, or holds the suffix of another query or prompt.
    """
    found = read_record(file, Suffix, _FORMAT, in_work=True)
    if found.key != key:
        raise damaged(file)
    return found


def _with_suffix(query: Query, suffix: str) -> str:
    return f"{text_of(query).strip()} {suffix.strip()}"


def _seed(seed: int, query: Query) -> int:
    """A seed for each query, so that it does not matter which ones were searched before."""
    digest = hashlib.sha256(f"{seed}\0{identity_of(query)}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _key(
    model: ChatModel, condition: Condition, query: Query, settings: GcgSettings, seed: int
) -> str:
    """Everything that a suffix depends on, as a fingerprint."""
    return fingerprint(
        "suffix",
        model=model.record.fingerprint,
        condition=condition.fingerprint,
        query=identity_of(query),
        steps=settings.gcg_steps,
        width=settings.gcg_width,
        target=TARGET,
        seed=seed,
        version=version_of("nanogcg"),
    )
