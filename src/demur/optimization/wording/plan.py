"""What is searched and how: everything that a caller chose, read and checked before any request."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING

from demur.arguments import require_common
from demur.endpoint import EndpointClient, EndpointSettings, SamplingOptions
from demur.errors import DemurError
from demur.evaluation.answerers.server import RESPONSES_AT_ONCE, Server
from demur.evaluation.record import JudgeRecord, SetRecord
from demur.judges import Judge, JudgeSpec, as_refusal_judge
from demur.judges.asking import EndpointIdentity
from demur.optimization.given import Given
from demur.optimization.wording.ledger import TEMPLATE_TOKENS, UNLIMITED_TOKENS, Spent
from demur.optimization.wording.record import WordingRecord
from demur.optimization.wording.search import SearchPlan, require_gepa
from demur.optimization.wording.settings import WordingSettings
from demur.prompts import (
    Condition,
    SafetyPrompt,
    check_system_texts,
    load_basic_prompt,
    load_system_prompt,
)
from demur.queries import (
    QueryChoice,
    QuerySet,
    as_query_set,
    join_query_sets,
    labelled_pair,
    require,
)
from demur.records import Label, Queries, ServerRecord
from demur.settings import build, values_of

if TYPE_CHECKING:
    from demur.evaluation.protocol import Protocol

PROMPTS = 3
"""Number of prompts in the final measurement: none, the basic one and the best one."""

_TARGETS = ("", "validation_", "held_out_")
_LABELS: tuple[Label, Label] = ("harmful", "harmless")
_QUERY_TOKENS = 256
"""Tokens of a query that are kept for, beside the estimates."""


@dataclass(frozen=True)
class WordingPlan:
    """What is searched and how.

    Attributes:
        settings: every setting.
        basic: the basic prompt, and the application's own system text.
        training: queries that proposals look at.
        validation: queries that choose among the proposals.
        held_out: the harmful and the harmless queries of the final measurement.
        judge: judge of refusal.
        objects: names of the settings that were given as objects.
    """

    settings: WordingSettings
    basic: Condition
    training: Queries
    validation: Queries
    held_out: tuple[QuerySet, QuerySet]
    judge: Judge
    objects: tuple[str, ...]

    @property
    def basic_text(self) -> str:
        """Text of the basic prompt."""
        assert self.basic.safety_prompt is not None
        assert self.basic.safety_prompt.text is not None
        return self.basic.safety_prompt.text

    @property
    def protocol(self) -> Protocol:
        """How responses are sampled, which is as `demur evaluate` does."""
        from demur.chat.engine import SamplingSettings
        from demur.evaluation.protocol import Protocol

        sampling, tokens = self.settings.sampling, self.settings.sampling.tokens
        return Protocol(
            sampling=SamplingSettings(
                samples=sampling.samples, most_tokens=tokens, seed=self.settings.seed
            ),
            tokens_harmful=tokens,
            tokens_harmless=tokens,
            kept=sampling.samples,
            cut_unfinished=False,
        )

    @property
    def budget(self) -> Spent:
        """The most that may be asked."""
        budget = self.settings.budget
        return Spent(budget.budget_calls, budget.budget_tokens)

    @property
    def shared_queries(self) -> int:
        """How many held-out queries are among those that the search reads."""
        held_out = {text for one in self.held_out for text in one.texts}
        return len(held_out & {*self.training.texts, *self.validation.texts})

    @property
    def search(self) -> SearchPlan:
        """What the search works with."""
        # An endpoint judge is asked once for each response.
        asks_judge = isinstance(self.judge, EndpointIdentity)
        each = self.settings.sampling.samples * (2 if asks_judge else 1)
        batch = TEMPLATE_TOKENS + _QUERY_TOKENS + self.settings.sampling.tokens
        batch += UNLIMITED_TOKENS if asks_judge else 0
        queries = sum(map(len, self.held_out))
        return SearchPlan(
            basic=self.basic_text,
            training=self.training,
            validation=self.validation,
            minibatch=self.settings.search.minibatch,
            seed=self.settings.seed,
            calls_per_query=each,
            final=queries * each,
            slack=min(RESPONSES_AT_ONCE, queries) * batch,
        )

    def server(self) -> Server:
        """The model that the prompt is for."""
        return Server.of(self.settings.target)

    def proposer(self, server: Server) -> EndpointClient:
        """The client of the model that proposes wordings.

        Args:
            server: the model that the prompt is for, which proposes where no other is chosen.

        Raises:
            DemurError: there are several models at the proposer's endpoint and none was named, or
                its key is missing.
        """
        target, own = self.settings.target, self.settings.proposer
        elsewhere = own.proposer_endpoint not in (None, target.endpoint)
        settings = EndpointSettings(
            own.proposer_endpoint or target.endpoint,
            concurrency=1,
            timeout=target.timeout,
            retries=target.retries,
            key_variable=own.proposer_key_variable,
        )
        client = EndpointClient(own.proposer_model or "", settings, SamplingOptions())
        if not client.model:
            client.model = _only_model(client) if elsewhere else server.client.model
        return client

    def record(self, model: ServerRecord, proposer: ServerRecord) -> WordingRecord:
        """What is recorded of the run.

        Args:
            model: what is recorded of the model that the prompt is for.
            proposer: what is recorded of the model that proposes wordings.
        """
        return WordingRecord(
            model=model,
            proposer=proposer,
            basic_prompt=self.basic.record(),
            training=SetRecord.of(self.training),
            validation=SetRecord.of(self.validation),
            held_out=SetRecord.of(labelled_pair(*self.held_out)),
            judge=JudgeRecord.of(self.judge),
            settings=self.settings,
            objects=self.objects,
        )

    def require_budget(self) -> None:
        """Check that the budget of calls covers a search with at least one proposal.

        Raises:
            DemurError: it does not.
        """
        search, calls = self.search, self.budget.calls
        validation = len(self.validation) * search.calls_per_query
        step = 4 * search.minibatch * search.calls_per_query + 1
        final = PROMPTS * search.final
        least = final + 2 * validation + step
        if calls < least:
            raise DemurError(
                f"--budget-calls {calls} is less than {final} for the final measurement, "
                f"{validation} for each wording on the validation queries and {step} for a "
                f"proposal: give at least {least}, or a lower --most-held-out or "
                "--most-validation."
            )


def wording_plan_of(settings: WordingSettings, given: Given | None = None) -> WordingPlan:
    """Read and check what settings name.

    Args:
        settings: every setting, for example from the command line.
        given: objects in the place of names.

    Raises:
        DemurError: something cannot be read or does not fit; the message says how to fix it.
    """
    given = given or Given()
    if settings.target.endpoint is None:
        raise DemurError(
            "The method 'text' improves the wording for a model behind an endpoint: give its "
            "address with --endpoint."
        )
    require_gepa()
    basic = _basic_prompt(settings, given)
    sets = {
        f"{target}{label}": _set(settings, given, target, label)
        for target in _TARGETS
        for label in _LABELS
    }
    judge = as_refusal_judge(
        settings.judge if given.judge is None else given.judge, base_url=settings.base_url
    )
    system = settings.system_prompt
    plan = WordingPlan(
        settings=settings.model_copy(update=given.described(settings.queries, basic, judge, sets)),
        basic=Condition(basic, None if system is None else load_system_prompt(system)),
        training=labelled_pair(sets["harmful"], sets["harmless"]),
        validation=labelled_pair(sets["validation_harmful"], sets["validation_harmless"]),
        held_out=(sets["held_out_harmful"], sets["held_out_harmless"]),
        judge=judge,
        objects=given.names,
    )
    for one in sets.values():
        check_system_texts([plan.basic], one.texts)
    plan.server()  # checks the address
    if settings.proposer.proposer_endpoint is not None:
        EndpointSettings(settings.proposer.proposer_endpoint)
    plan.require_budget()
    return plan


def make_wording_plan(
    server: Server,
    *,
    basic_prompt: str | PathLike[str] | SafetyPrompt | None = None,
    system_prompt: str | PathLike[str] | None = None,
    judge: JudgeSpec | None = None,
    sets: Mapping[str, QueryChoice | None],
    settings: Mapping[str, object],
) -> WordingPlan:
    """Read and check what a caller chose, as names or as objects; see `optimize_wording`.

    Args:
        server: the model that the prompt is for.
        basic_prompt: basic prompt.
        system_prompt: text file with the application's own system text.
        judge: judge of refusal.
        sets: queries by the names of the settings; None where the setting's default holds.
        settings: values of other settings by name.

    Raises:
        DemurError: something cannot be read or does not fit; the message says how to fix it.
    """
    require_common(system_prompt=system_prompt)
    choices = {"basic_prompt": basic_prompt, "system_prompt": system_prompt, "judge": judge, **sets}
    named = {name: str(one) for name, one in choices.items() if isinstance(one, (str, PathLike))}
    found = build(WordingSettings, {**values_of(server.settings), **settings, **named})
    given = Given(
        basic_prompt=None if isinstance(basic_prompt, (str, PathLike)) else basic_prompt,
        judge=None if isinstance(judge, (str, PathLike)) else judge,
        sets={name: one for name, one in sets.items() if one is not None and name not in named},
    )
    return wording_plan_of(found, given)


def _only_model(client: EndpointClient) -> str:
    models = client.models()
    if len(models) != 1:
        raise DemurError(
            f"{client.place} has {len(models)} models: name the one that proposes wordings with "
            "--proposer-model."
        )
    return models[0]


def _basic_prompt(settings: WordingSettings, given: Given) -> SafetyPrompt:
    own = given.basic_prompt
    prompt = load_basic_prompt(settings.basic_prompt) if own is None else own
    if not isinstance(prompt, SafetyPrompt) or prompt.is_trained or prompt.text is None:
        raise DemurError(
            "The basic prompt is not text, and only a text has a wording: give a name, a text file "
            "or SafetyPrompt(name, text)."
        )
    most = settings.search.most_characters
    if len(prompt.text) > most:
        raise DemurError(
            f"The basic prompt has {len(prompt.text)} characters and a prompt may have {most}: "
            "give a higher --most-characters."
        )
    return prompt


def _set(settings: WordingSettings, given: Given, target: str, label: Label) -> QuerySet:
    name = f"{target}{label}"
    queries = settings.queries
    most: int = getattr(queries, f"most_{target.removesuffix('_') or 'training'}")
    parts: Sequence[QuerySet]
    if name in given.sets:
        parts = [as_query_set(given.sets[name], label)]
    else:
        parts = [as_query_set(one, label) for one in getattr(queries, name)]
    return require(join_query_sets([_mixed(one) for one in parts], most), most)


def _mixed(queries: QuerySet) -> QuerySet:
    """The set in an order that does not depend on a seed, so that its beginning is like all."""
    order = list(range(len(queries)))
    random.Random(len(queries)).shuffle(order)
    categories = queries.categories
    return replace(
        queries,
        texts=tuple(queries.texts[place] for place in order),
        categories=None if categories is None else tuple(categories[place] for place in order),
    )
