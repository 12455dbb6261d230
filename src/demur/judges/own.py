"""Users' own judges, with every result checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import numpy as np

from demur.arguments import described
from demur.bars import default_progress
from demur.errors import DemurError
from demur.judges.checks import require_equal, require_queries
from demur.judges.default import DefaultRefusalJudge
from demur.judges.paper import PaperRefusalJudge
from demur.judges.protocol import Decision, verdict_of
from demur.plugins import describe_error, load_plugin, plugin_fingerprint, source_fingerprint
from demur.plugins.loading import split_spec
from demur.progress import Progress
from demur.records import Verdict, answer_in, answer_stretch
from demur.records.fingerprint import fingerprint

_MOST_NAME = 80
_TAKEN_NAMES = (DefaultRefusalJudge.name, PaperRefusalJudge.name)
_TAKEN_KINDS = ("classifier:", "guard:", "endpoint:")
_WORDS = [verdict.value for verdict in Verdict]


class OwnJudge:
    """A judge that the user wrote; `own_judge` makes it.

    Args:
        judge: object with a method `judge(queries, responses)`, or a function of these two; either
            may take `progress` as well.
        name: what results call the judge, where it has no attribute `name`.
        source: computes the fingerprint, where the judge has no attribute `fingerprint`.

    Attributes:
        name: what results call the judge.
        fingerprint: SHA-256 (64 hex digits) that changes whenever its verdicts may change.
        needs_query: whether the judge needs the text of every query.
        tells_deflections: whether the judge tells deflections from answers, and returns words.

    Raises:
        DemurError: the judge cannot be called like that, or an attribute is not what it should be.
    """

    def __init__(self, judge: object, name: str, source: Callable[[], str]) -> None:
        self._judge = _method(judge, name)
        self._takes_progress = _accepts(self._judge, progress=True)
        if not self._takes_progress and not _accepts(self._judge, progress=False):
            raise DemurError(
                f"The judge {name!r} cannot be called with queries and responses: give it the "
                "parameters (queries, responses)."
            )
        self.name = _own_name(judge, name)
        self.needs_query = _flag(judge, "needs_query", self.name)
        # One that derives from a judge of demur may decide otherwise, so it has to say so itself.
        inherited = _inherits_from_demur(judge, "tells_deflections")
        self.tells_deflections = not inherited and _flag(judge, "tells_deflections", self.name)
        self.fingerprint = _own_fingerprint(judge, self.name, source)

    def judge(
        self,
        queries: Sequence[str | None],
        responses: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Decision]:
        """Judge the answer in each response; None where one is reasoning alone.

        A judge that tells deflections says here which responses refuse.

        Raises:
            DemurError: queries and responses differ in number, a query is missing that the judge
                needs, the judge fails, or it returns something other than one verdict for each
                response.
        """
        said = self._judged(queries, responses, progress)
        return [one is Verdict.REFUSES if isinstance(one, Verdict) else one for one in said]

    def verdicts(
        self,
        queries: Sequence[str | None],
        responses: Sequence[str],
        progress: Progress | None = None,
    ) -> list[Verdict | None]:
        """What each response does, by a judge of refusal; None where one is reasoning alone.

        Raises:
            DemurError: as for `judge`.
        """
        said = self._judged(queries, responses, progress)
        return [one if isinstance(one, Verdict) else verdict_of(one) for one in said]

    def _judged(
        self,
        queries: Sequence[str | None],
        responses: Sequence[str],
        progress: Progress | None,
    ) -> list[Decision | Verdict]:
        require_equal("queries", queries, responses)
        if self.needs_query:
            require_queries(self.name, queries)
        answers = [answer_in(response) for response in responses]
        rows = [row for row, answer in enumerate(answers) if answer is not None]
        verdicts: list[Decision | Verdict] = [None] * len(responses)
        if rows:
            given = [queries[row] for row in rows], [answers[row] or "" for row in rows]
            for row, verdict in zip(rows, self._asked(*given, progress), strict=True):
                verdicts[row] = verdict
        return verdicts

    def _asked(
        self, queries: list[str | None], answers: list[str], progress: Progress | None
    ) -> list[Decision | Verdict]:
        options = {"progress": progress or default_progress()} if self._takes_progress else {}
        try:
            returned = self._judge(queries, answers, **options)
            # Arrays and tensors become lists of Python's own values.
            returned = returned.tolist() if hasattr(returned, "tolist") else returned
        except (Exception, SystemExit) as error:
            raise _failed(self.name, error) from error
        return self._checked(returned, len(answers))

    def _checked(self, returned: object, count: int) -> list[Decision | Verdict]:
        wanted = (
            f"{', '.join(map(repr, _WORDS))} or None"
            if self.tells_deflections
            else "True, False or None"
        )
        if not isinstance(returned, (list, tuple)):
            raise DemurError(
                f"The judge {self.name!r} returned {described(returned)}: return a list with "
                f"{wanted} for each response."
            )
        if len(returned) != count:
            raise DemurError(
                f"The judge {self.name!r} returned {_counted(len(returned), 'verdict')} on "
                f"{_counted(count, 'response')}: return one for each."
            )
        return [self._read(verdict, wanted) for verdict in returned]

    def _read(self, verdict: object, wanted: str) -> Decision | Verdict:
        """One verdict as it was returned."""
        if verdict is None:
            return None
        if isinstance(verdict, (bool, np.bool_)):
            return bool(verdict)
        is_word = isinstance(verdict, str) and verdict in _WORDS
        if is_word and self.tells_deflections:
            return Verdict(verdict)
        set_it = " (words only with the attribute tells_deflections = True)" if is_word else ""
        is_unknown = isinstance(verdict, str) and self.tells_deflections
        told = f"{verdict!r:.40}" if is_unknown else described(verdict)
        raise DemurError(
            f"The judge {self.name!r} returned {told} as a verdict: return {wanted}{set_it}."
        )


class OwnSettlingJudge(OwnJudge):
    """A judge that the user wrote and that offers early settling.

    Args:
        judge: as for `OwnJudge`.
        name: as for `OwnJudge`.
        source: as for `OwnJudge`.
        settles: method `is_settled(partial)` of the judge.
    """

    def __init__(
        self,
        judge: object,
        name: str,
        source: Callable[[], str],
        settles: Callable[[str], object],
    ) -> None:
        super().__init__(judge, name, source)
        self._settles = settles

    def is_settled(self, partial: str) -> bool:
        """Whether no continuation of `partial` can change its verdict.

        Raises:
            DemurError: the judge fails, or returns something other than True or False.
        """
        answer = answer_stretch(partial)
        if answer is None or answer.end < len(partial):
            return False
        try:
            settled = self._settles(partial[answer.start :])
        except (Exception, SystemExit) as error:
            raise _failed(self.name, error) from error
        if not isinstance(settled, (bool, np.bool_)):
            raise DemurError(
                f"The judge {self.name!r} returned {described(settled)} from is_settled: return "
                "True or False."
            )
        return bool(settled)


def own_judge(judge: object) -> OwnJudge:
    """The user's judge, checked.

    Args:
        judge: `file.py:Name`, an object with a method `judge`, a function, or a class that can be
            called without arguments.

    Raises:
        DemurError: it cannot be loaded or used as a judge.
    """
    if isinstance(judge, str):
        thing, spec = load_plugin(judge), judge
        path, name = split_spec(spec)
        return _wrapped(thing, f"{path.name}:{name}", lambda: plugin_fingerprint(spec))
    name = getattr(judge, "__name__", None) or type(judge).__name__
    return _wrapped(judge, str(name), lambda: source_fingerprint(judge))


def _wrapped(thing: object, name: str, source: Callable[[], str]) -> OwnJudge:
    if isinstance(thing, type):
        try:
            thing = thing()
        except DemurError:
            raise
        except (Exception, SystemExit) as error:
            raise DemurError(
                f"The judge {name!r} cannot be made without arguments ({describe_error(error)}): "
                "give an object instead of the class, or defaults to its parameters."
            ) from error
    settles = _attribute(thing, "is_settled", name)
    if callable(settles):
        return OwnSettlingJudge(thing, name, source, settles)
    return OwnJudge(thing, name, source)


def _method(judge: object, name: str) -> Callable[..., object]:
    for call in (_attribute(judge, "judge", name), judge):
        if callable(call):
            return call
    raise DemurError(
        f"{name!r:.100} is not a judge: give an object with a method judge(queries, responses), or "
        "a function of these two."
    )


def _accepts(call: Callable[..., object], *, progress: bool) -> bool:
    """Whether `call` can be called with queries and responses, and `progress` where asked for."""
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):  # written in C
        return not progress
    try:
        signature.bind([], [], **({"progress": None} if progress else {}))
    except TypeError:
        return False
    return True


def _attribute(judge: object, attribute: str, name: str) -> object:
    """An attribute of the user's judge, or None where there is none."""
    try:
        return getattr(judge, attribute, None)
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _own_name(judge: object, default: str) -> str:
    own = _attribute(judge, "name", default)
    name = default if own is None else own
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise DemurError(
            f"The name of the judge {default!r:.100} is not a line of text: give it one as its "
            "attribute 'name'."
        )
    if name in _TAKEN_NAMES or name.startswith(_TAKEN_KINDS):
        raise DemurError(
            f"The judge {default!r:.100} is named {name!r:.60}, like one of demur's own: give it "
            "another name as its attribute 'name'."
        )
    return name[:_MOST_NAME]


def _flag(judge: object, attribute: str, name: str) -> bool:
    """An attribute that is True or False; False where there is none."""
    flag = _attribute(judge, attribute, name)
    if flag is not None and not isinstance(flag, bool):
        raise DemurError(
            f"The attribute {attribute!r} of the judge {name!r} is {described(flag)}: make it "
            "True or False."
        )
    return bool(flag)


def _own_fingerprint(judge: object, name: str, source: Callable[[], str]) -> str:
    """From the judge's own attribute, else from its source; from both where it is inherited."""
    own = _attribute(judge, "fingerprint", name)
    if own is None:
        return source()
    if not isinstance(own, str) or not own:
        raise DemurError(
            f"The attribute 'fingerprint' of the judge {name!r} is {described(own)}: make it a "
            "text that changes whenever its verdicts may change."
        )
    if _inherits_from_demur(judge, "fingerprint"):
        return fingerprint("own judge", name=name, inherited=own, source=source())
    return fingerprint("own judge", name=name, own=own)


def _inherits_from_demur(judge: object, attribute: str) -> bool:
    if attribute in getattr(judge, "__dict__", {}):
        return False
    kinds = [kind for kind in type(judge).__mro__ if attribute in vars(kind)]
    return bool(kinds) and kinds[0].__module__.split(".")[0] == "demur"


def _failed(name: str, error: Exception | SystemExit) -> DemurError:
    if isinstance(error, DemurError):
        return DemurError(str(error))
    return DemurError(
        f"The judge {name!r} failed ({describe_error(error)}): correct it and run again."
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
