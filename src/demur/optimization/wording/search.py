"""The search for a better wording with GEPA (Agrawal et al., arXiv 2507.19457).

GEPA keeps a pool of wordings. It takes one that is the best on some validation query, shows a
model what it does on a few training queries, and asks for a better one (section 3.2). A wording
that does better on these queries is measured on all validation queries and joins the pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from demur.errors import DemurError
from demur.optimization.wording.ledger import AnswerLedger, BudgetSpent, Spent
from demur.optimization.wording.proposing import Evidence, Proposer
from demur.optimization.wording.record import Candidate, Ending, Search
from demur.optimization.wording.scoring import Score, Scorer, share_right
from demur.optimization.wording.settings import percent
from demur.progress import Progress
from demur.records import JudgedResponse, Queries

if TYPE_CHECKING:
    from gepa.core.adapter import EvaluationBatch, ProposalFn
    from gepa.core.callbacks import GEPACallback, ValsetEvaluatedEvent
    from gepa.core.state import GEPAState

MOST_UNUSABLE = 10
"""Number of unusable proposals in a row after which a search ends."""

IDLE_EPOCHS = 3
"""Passes over the training queries without a new request after which a search ends."""

_COMPONENT = "safety prompt"
_EVIDENCE = "evidence"


@dataclass(frozen=True)
class SearchPlan:
    """What a search works with.

    Attributes:
        basic: the wording to start from.
        training: queries that proposals look at.
        validation: queries that choose among the proposals.
        minibatch: pairs of training queries that a proposal is made from.
        seed: seed of the order of the queries and the choice of parents.
        calls_per_query: number of requests for the responses to a query and their verdicts.
        final: number of requests in the final measurement under one prompt.
        slack: number of tokens that are kept beside the estimate for the final measurement.
    """

    basic: str
    training: Queries
    validation: Queries
    minibatch: int
    seed: int
    calls_per_query: int
    final: int
    slack: int


@dataclass(frozen=True)
class _Item:
    """Queries that are scored together.

    Attributes:
        queries: the set that they belong to.
        rows: their places in it.
    """

    queries: Queries
    rows: tuple[int, ...]


def require_gepa() -> None:
    """Check that GEPA is installed.

    Raises:
        DemurError: it is not.
    """
    try:
        import gepa  # noqa: F401
    except ImportError as error:
        raise DemurError(
            "The method 'text' needs the package gepa: run `pip install 'demur[gepa]'`."
        ) from error


def search(
    plan: SearchPlan,
    scorer: Scorer,
    proposer: Proposer,
    ledger: AnswerLedger,
    progress: Progress,
) -> Search:
    """Search for a better wording until the budget is spent, less what the measurement needs.

    Args:
        plan: what to work with.
        scorer: measures wordings.
        proposer: proposes wordings.
        ledger: counts the budget.
        progress: receives a stage, and a message for each wording that is better than all before.

    Raises:
        DemurError: the budget does not cover the basic prompt on the validation queries, or an
            endpoint fails.
    """
    from gepa.api import optimize

    ledger.reserve = Spent(3 * plan.final)
    total = max(0, ledger.budget.calls - ledger.reserve.calls)
    with progress.stage("Improving the wording", total, "calls") as stage:
        adapter = _Adapter(plan, scorer, proposer, ledger, progress)
        ledger.on_answer = stage.advance
        try:
            optimize(
                seed_candidate={_COMPONENT: plan.basic},
                trainset=_pairs(plan.training),
                valset=[_Item(plan.validation, (row,)) for row in range(len(plan.validation))],
                adapter=adapter,
                reflection_minibatch_size=plan.minibatch,
                stop_callbacks=adapter.should_stop,
                callbacks=[cast("GEPACallback", adapter)],
                logger=_Silent(),
                track_best_outputs=False,
                seed=plan.seed,
            )
        except BudgetSpent:
            if not adapter.candidates:
                raise
        finally:
            ledger.on_answer = _nothing
    if adapter.failure is not None and not isinstance(adapter.failure, BudgetSpent):
        raise adapter.failure
    return Search(
        tuple(adapter.candidates), proposer.asked, proposer.unusable, adapter.ending or "budget"
    )


def _nothing() -> None:
    pass


def _pairs(queries: Queries) -> list[_Item]:
    """Pairs of a harmful and a harmless query; those of the smaller kind come several times."""
    harmful, harmless = (queries.rows(harmful=wanted) for wanted in (True, False))
    return [
        _Item(queries, (harmful[place % len(harmful)], harmless[place % len(harmless)]))
        for place in range(max(len(harmful), len(harmless)))
    ]


class _Silent:
    """GEPA's log, which is not shown."""

    def log(self, message: str) -> None:
        """Drop a message."""


class _Adapter:
    """What GEPA asks for: scores, evidence and proposals. It also says when to stop.

    Attributes:
        candidates: wordings that were measured on all validation queries.
        failure: error that GEPA would pass over.
        ending: why the search ended; None while it has not.
    """

    def __init__(
        self,
        plan: SearchPlan,
        scorer: Scorer,
        proposer: Proposer,
        ledger: AnswerLedger,
        progress: Progress,
    ) -> None:
        self._plan, self._scorer, self._proposer = plan, scorer, proposer
        self._ledger, self._progress = ledger, progress
        self._scores: dict[str, Score] = {}
        self._spent: dict[str, Spent] = {}
        self._tokens: dict[str, float] = {}  # tokens for a query under each wording
        self._calls_before, self._idle = 0, 0
        self.candidates: list[Candidate] = []
        self.failure: Exception | None = None
        self.ending: Ending | None = None
        self.propose_new_texts: ProposalFn | None = self._propose

    def evaluate(
        self, batch: list[_Item], candidate: dict[str, str], capture_traces: bool = False
    ) -> EvaluationBatch[list[JudgedResponse], None]:
        """Score a wording on items of one set."""
        from gepa.core.adapter import EvaluationBatch

        text, queries = candidate[_COMPONENT], batch[0].queries
        rows = sorted({row for item in batch for row in item.rows})
        if queries is self._plan.validation:
            self._require_validation(text, len(rows))
        before = self._ledger.spent
        responses = self._scorer.responses(text, queries.select(rows))
        calls = self._ledger.spent.calls - before.calls
        if calls:
            tokens = (self._ledger.spent.tokens - before.tokens) / calls
            self._tokens[text] = tokens * self._plan.calls_per_query
        of_row = dict(zip(rows, responses, strict=True))
        if queries is self._plan.validation:
            self._scores[text] = Score.of([one for found in responses for one in found])
            self._spent[text] = self._ledger.spent
        found = [[one for row in item.rows for one in of_row[row]] for item in batch]
        return EvaluationBatch(
            outputs=[None] * len(batch),
            scores=[share_right(one) for one in found],
            trajectories=found if capture_traces else None,
        )

    def make_reflective_dataset(
        self,
        candidate: dict[str, str],
        eval_batch: EvaluationBatch[list[JudgedResponse], None],
        components_to_update: list[str],
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """What the proposer is shown."""
        shown = [Evidence.of(one) for found in eval_batch.trajectories or () for one in found]
        return {_COMPONENT: [{_EVIDENCE: one} for one in dict.fromkeys(shown)]}

    def _propose(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        """A new wording; nothing where none can be used."""
        if self.failure is not None:  # GEPA tries again whatever fails
            raise self.failure
        evidence = [row[_EVIDENCE] for row in reflective_dataset[_COMPONENT]]
        try:
            known = [one.text for one in self.candidates]
            found = self._proposer.propose(candidate[_COMPONENT], evidence, known)
        except Exception as error:
            self.failure = error
            raise
        return {} if found is None else {_COMPONENT: found}

    def on_valset_evaluated(self, event: ValsetEvaluatedEvent) -> None:
        """Note a wording that was measured on all validation queries."""
        text, parents = event["candidate"][_COMPONENT], list(event["parent_ids"])
        parent = parents[0] if parents else None
        best = max((one.score.value for one in self.candidates), default=None)
        score = self._scores[text]
        self.candidates.append(Candidate(text, parent, score, self._spent[text]))
        self._ledger.reserve = Spent(3 * self._plan.final, self._final_tokens(self._best.text))
        if best is not None and score.value > best:
            self._progress.message(
                f"Proposal {self._proposer.asked} is right on {percent(score.value)} of the "
                f"validation queries, the best before on {percent(best)}."
            )

    def should_stop(self, gepa_state: GEPAState[Any, Any]) -> bool:
        """Whether the search is over."""
        calls = self._ledger.spent.calls
        self._idle = 0 if calls > self._calls_before else self._idle + 1
        self._calls_before = calls
        pairs = len(_pairs(self._plan.training))
        if self.failure is not None:
            self.ending = "budget"
        elif self._best.score.is_perfect:
            self.ending = "all right"
        elif self._proposer.unusable_in_a_row >= MOST_UNUSABLE:
            self.ending = "no proposals"
        elif self._idle > IDLE_EPOCHS * (1 + pairs // self._plan.minibatch):
            self.ending = "nothing new"
        return self.ending is not None

    @property
    def _best(self) -> Candidate:
        return max(self.candidates, key=lambda one: one.score.value)

    def _require_validation(self, text: str, queries: int) -> None:
        """Check that a wording can be measured, now and, should it be the best, in the end."""
        tokens = int(queries * self._tokens.get(text, 0.0))
        if self.candidates:
            later = self._final_tokens(text) - self._final_tokens(self._best.text)
            tokens += max(0, later)
        self._ledger.require(queries * self._plan.calls_per_query, tokens)

    def _final_tokens(self, text: str) -> int:
        """What the final measurement will cost if a wording is chosen, with a quarter to spare."""
        basic = self._tokens.get(self._plan.basic, 0.0)
        each = 2 * basic + self._tokens.get(text, 0.0)
        queries = self._plan.final / self._plan.calls_per_query
        return int(1.25 * queries * each) + self._plan.slack
