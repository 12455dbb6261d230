"""Judges that users write: objects, functions and `file.py:Name`."""

from __future__ import annotations

import functools
import re
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demur.errors import DemurError
from demur.judges import (
    Decision,
    DefaultRefusalJudge,
    Judge,
    PaperRefusalJudge,
    SettlingJudge,
    Verdict,
    as_harm_judge,
    as_refusal_judge,
    needs_query,
    settling,
    three_way,
    verdicts_of,
)
from demur.progress import Progress, SilentProgress

FILE = """\
from dataclasses import dataclass

import neighbour

WORDS = neighbour.WORDS


@dataclass
class KeywordJudge:
    words: tuple = WORDS

    def judge(self, queries, responses):
        return [any(word in response for word in self.words) for response in responses]


class Needy:
    def __init__(self, words):
        self.words = words


class Broken:
    def __init__(self):
        raise OSError("no such model\\nand more")


def function(queries, responses):
    return [response.startswith("no") for response in responses]


made = KeywordJudge(("never",))
number = 3
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of judges; its folder is the working directory."""
    (tmp_path / "neighbour.py").write_text("WORDS = ('cannot',)\n", encoding="utf-8")
    path = tmp_path / "mine.py"
    path.write_text(FILE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "neighbour", raising=False)
    return path


class KeywordJudge:
    """Written as the docstring of `Judge` says."""

    name = "keywords"
    fingerprint = "keywords, version 1"

    def judge(
        self,
        queries: Sequence[str | None],
        responses: Sequence[str],
        progress: Progress | None = None,
    ) -> list[bool | None]:
        return [None if not response else "cannot" in response for response in responses]


class Returning:
    """Returns whatever it was made with."""

    def __init__(self, returned: object) -> None:
        self.returned = returned

    def judge(self, queries: Sequence[str | None], responses: Sequence[str]) -> Any:
        return self.returned


def judged(judge: Any, *responses: str) -> list[Decision]:
    return as_refusal_judge(judge).judge([None] * len(responses), responses)


def failure(judge: Any, *responses: str) -> str:
    with pytest.raises(DemurError) as caught:
        judged(judge, *responses)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


# Three verdicts


def in_words(queries: Sequence[str | None], responses: Sequence[str]) -> list[str | None]:
    return [response if response != "?" else None for response in responses]


class InWords:
    """Says what it was given, in words."""

    tells_deflections = True

    def judge(self, queries: Sequence[str | None], responses: Sequence[str]) -> list[Any]:
        return [Verdict(one) if one == "deflects" else one for one in in_words(queries, responses)]


def test_a_judge_can_tell_deflections() -> None:
    judge = as_refusal_judge(InWords())
    said = ["refuses", "deflects", "answers", "?"]
    wanted = [Verdict.REFUSES, Verdict.DEFLECTS, Verdict.ANSWERS, None]
    assert verdicts_of(judge, [None] * 4, said) == wanted
    assert three_way(judge) is judge
    # Asked as any other judge, it says what refuses.
    assert judge.judge([None] * 4, said) == [True, False, False, None]
    with pytest.raises(DemurError, match=r"tells deflections, so it judges refusal and not harm"):
        as_harm_judge(InWords())


def test_a_function_can_tell_deflections(file: Path) -> None:
    file.write_text(
        "def words(queries, responses):\n"
        "    return ['deflects' if 'hotline' in one else 'answers' for one in responses]\n"
        "words.tells_deflections = True\n",
        encoding="utf-8",
    )
    judge = as_refusal_judge("mine.py:words")
    found = verdicts_of(judge, [None] * 2, ["Call the hotline.", "Yes."])
    assert found == [Verdict.DEFLECTS, Verdict.ANSWERS]


def test_a_judge_with_two_verdicts_never_says_deflects() -> None:
    judge = as_refusal_judge(KeywordJudge())
    assert three_way(judge) is None
    found = verdicts_of(judge, [None] * 3, ["I cannot", "Call the hotline.", ""])
    assert found == [Verdict.REFUSES, Verdict.ANSWERS, None]
    assert "only with the attribute tells_deflections" in failure(in_words, "deflects")


def test_words_are_checked() -> None:
    message = failure(InWords(), "evades")
    assert "return 'refuses', 'deflects', 'answers' or None." in message
    wrong = type("Wrong", (InWords,), {"tells_deflections": "yes"})
    assert "'tells_deflections' of the judge 'Wrong' is a str" in failure(wrong(), "answers")


def test_a_judge_derived_from_demurs_own_says_itself_whether_it_tells_deflections() -> None:
    class Stricter(DefaultRefusalJudge):
        name = "stricter"

        def judge(self, *_: Any) -> list[Decision]:
            return [True]

    judge = as_refusal_judge(Stricter())
    assert three_way(judge) is None
    assert verdicts_of(judge, [None], ["Yes."]) == [Verdict.REFUSES]


# Objects, functions and classes


def test_an_object_is_a_judge_of_either_kind() -> None:
    for made in (as_refusal_judge(KeywordJudge()), as_harm_judge(KeywordJudge())):
        assert isinstance(made, Judge)
        assert made.name == "keywords"
        assert made.judge(["q", None, "q"], ["I cannot", "yes", ""]) == [True, False, None]
        assert made.judge([], []) == []


def test_the_example_of_the_docstring_runs(tmp_path: Path) -> None:
    docstring = Judge.__doc__
    assert docstring is not None
    lines = docstring.split("`mine.py`:\n")[1].split("\n        It is used")[0]
    path = tmp_path / "mine.py"
    path.write_text(re.sub(r"(?m)^ {12}", "", lines), encoding="utf-8")
    judge = as_refusal_judge(f"{path}:KeywordJudge")
    assert judge.name == "keywords"
    assert judge.judge([None] * 2, ["I can't help.", "Sure."]) == [True, False]


def test_a_class_is_made_without_arguments() -> None:
    assert judged(KeywordJudge, "I cannot", "yes") == [True, False]
    message = failure(Returning, "x")
    assert "'Returning' cannot be made without arguments (TypeError: " in message


def test_a_function_is_a_judge() -> None:
    def starts_with_no(queries: Sequence[str | None], responses: Sequence[str]) -> list[bool]:
        return [response.startswith("no") for response in responses]

    judge = as_refusal_judge(starts_with_no)
    assert judge.name == "starts_with_no"
    assert judge.judge(["q", None], ["no", "yes"]) == [True, False]
    twice = as_refusal_judge(functools.partial(starts_with_no))
    assert twice.name == "partial"
    assert twice.judge([None], ["no"]) == [True]


def test_progress_is_handed_to_who_takes_it() -> None:
    seen: list[object] = []

    def reporting(
        queries: Sequence[str | None], responses: Sequence[str], progress: Progress | None = None
    ) -> list[bool]:
        seen.append(progress)
        return [True] * len(responses)

    progress = SilentProgress()
    judge = as_refusal_judge(reporting)
    judge.judge([None], ["x"], progress)
    judge.judge([None], ["x"])
    assert seen[0] is progress
    assert isinstance(seen[1], SilentProgress)

    def strict(
        queries: Sequence[str | None], responses: Sequence[str], threshold: float = 0.5
    ) -> list[bool]:
        return [threshold > 0.4] * len(responses)

    assert judged(strict, "x") == [True]


def test_built_in_judges_stay_what_they_are() -> None:
    for judge in (PaperRefusalJudge(), DefaultRefusalJudge()):
        assert as_refusal_judge(judge) is judge
    own = as_refusal_judge(KeywordJudge())
    assert as_refusal_judge(own) is own
    assert as_harm_judge(own) is own


def test_a_judge_derived_from_a_rule_is_the_users_own() -> None:
    class Stricter(PaperRefusalJudge):
        name = "stricter"

        def refuses(self, response: str) -> bool:
            return super().refuses(response) or "rather not" in response

    judge = as_refusal_judge(Stricter())
    assert judge.name == "stricter"
    assert judge.judge([None], ["I'd rather not."]) == [True]
    assert judge.fingerprint != PaperRefusalJudge().fingerprint
    with pytest.raises(DemurError, match="named 'default', like one of demur's own"):
        as_refusal_judge(type("Named", (KeywordJudge,), {"name": "default"}))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("guard:x", "like one of demur's own"),
        ("", "is not a line of text"),
        ("two\nlines", "is not a line of text"),
        ("\x1b[31mred", "is not a line of text"),
        (3, "is not a line of text"),
    ],
)
def test_a_name_is_a_line_of_text(name: object, words: str) -> None:
    assert words in failure(type("Named", (KeywordJudge,), {"name": name}))


@pytest.mark.parametrize("thing", [3, None, object(), ["paper"], {"judge": 1}])
def test_other_things_are_not_judges(thing: Any) -> None:
    assert "is not a judge: give an object with a method judge" in failure(thing)


def test_a_judge_must_take_queries_and_responses() -> None:
    def one(response: str) -> bool:
        return True

    message = failure(one)
    assert "'one' cannot be called with queries and responses" in message


# What a judge returns


@pytest.mark.parametrize(
    "returned",
    [
        [True, False, None],
        (True, False, None),
        [np.True_, np.False_, None],
        np.array([True, False, None], dtype=object),
    ],
)
def test_verdicts_are_plain_values(returned: object) -> None:
    verdicts = judged(type("Own", (Returning,), {"fingerprint": "1"})(returned), "a", "b", "c")
    assert verdicts == [True, False, None]
    assert [type(verdict) for verdict in verdicts] == [bool, bool, type(None)]


def test_arrays_and_tensors_of_booleans_are_taken() -> None:
    import torch

    class Own(Returning):
        fingerprint = "1"

    assert judged(Own(np.array([True, False])), "a", "b") == [True, False]
    assert judged(Own(torch.tensor([True, False])), "a", "b") == [True, False]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ([True], "returned 1 verdict on 2 responses"),
        ([True] * 3, "returned 3 verdicts on 2 responses"),
        ([], "returned 0 verdicts on 2 responses"),
        (True, "returned a bool: return a list"),
        (None, "returned None: return a list"),
        ("yn", "returned a str: return a list"),
        ({0: True, 1: False}, "returned a dict: return a list"),
        ([True, "yes"], "returned a str as a verdict"),
        ([1, 0], "returned an int as a verdict"),
        ([0.9, 0.1], "returned a float as a verdict"),
        (np.array([1, 0]), "returned an int as a verdict"),
        (np.array([[True], [False]]), "returned a list as a verdict"),
    ],
)
def test_other_results_are_refused(returned: object, words: str) -> None:
    message = failure(Returning(returned), "a", "b")
    assert "'Returning'" in message
    assert words in message


def test_an_exception_is_one_line_with_its_cause() -> None:
    def failing(queries: Sequence[str | None], responses: Sequence[str]) -> list[bool]:
        raise ValueError("no such label\x1b[31m\nand more")

    message = failure(failing, "x")
    assert "The judge 'failing' failed (ValueError: no such label[31m)" in message
    with pytest.raises(DemurError) as caught:
        judged(failing, "x")
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_judge_that_ends_the_program_is_one_line() -> None:
    class Exiting:
        def __init__(self) -> None:
            sys.exit(3)

        def judge(self, queries: Sequence[str | None], responses: Sequence[str]) -> list[bool]:
            raise AssertionError

    def exiting(queries: Sequence[str | None], responses: Sequence[str]) -> list[bool]:
        sys.exit(0)

    assert "The judge 'exiting' failed (SystemExit: 0)" in failure(exiting, "x")
    with pytest.raises(DemurError, match=r"without arguments \(SystemExit: 3\)"):
        as_refusal_judge(Exiting)


def test_an_error_of_demur_inside_is_passed_on() -> None:
    def asking(queries: Sequence[str | None], responses: Sequence[str]) -> list[bool]:
        raise DemurError("The server is down: start it.")

    assert failure(asking, "x") == "The server is down: start it."


def test_an_interruption_is_not_a_failure() -> None:
    def interrupted(queries: Sequence[str | None], responses: Sequence[str]) -> list[bool]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judged(interrupted, "x")


def test_lists_of_unequal_length_are_refused() -> None:
    with pytest.raises(DemurError, match="1 queries and 2 responses"):
        as_refusal_judge(KeywordJudge()).judge(["q"], ["a", "b"])


# The extras


def test_a_judge_that_needs_the_query_is_never_called_without_one() -> None:
    seen: list[list[str | None]] = []

    class Needy(KeywordJudge):
        needs_query = True

        def judge(
            self,
            queries: Sequence[str | None],
            responses: Sequence[str],
            progress: Progress | None = None,
        ) -> list[bool | None]:
            seen.append(list(queries))
            return [True] * len(responses)

    judge = as_refusal_judge(Needy())
    assert needs_query(judge)
    with pytest.raises(DemurError, match="'keywords' needs the query of each response"):
        judge.judge(["q", None], ["a", "b"])
    assert seen == []
    assert judge.judge(["q", "r"], ["a", "b"]) == [True, True]
    assert not needs_query(as_refusal_judge(KeywordJudge()))
    assert "'needs_query' of the judge 'keywords' is a str" in failure(
        type("Odd", (KeywordJudge,), {"needs_query": "yes"})
    )


def test_settling_is_never_claimed_for_a_judge_without_it() -> None:
    judge = as_refusal_judge(KeywordJudge())
    assert settling(judge) is None
    assert not isinstance(judge, SettlingJudge)
    assert not hasattr(judge, "is_settled")


def test_a_judge_may_settle() -> None:
    class Settling(KeywordJudge):
        def is_settled(self, partial: str) -> Any:
            if partial == "odd":
                return "yes"
            if partial == "bad":
                raise ValueError("bad")
            return np.bool_("cannot" in partial)

    judge = settling(as_refusal_judge(Settling()))
    assert judge is not None
    assert judge.is_settled("I cannot") is True
    assert judge.is_settled("I can") is False
    with pytest.raises(DemurError, match="returned a str from is_settled"):
        judge.is_settled("odd")
    with pytest.raises(DemurError, match="'keywords' failed"):
        judge.is_settled("bad")


# Fingerprints


def test_the_fingerprint_is_the_judges_own() -> None:
    fingerprints = [
        as_refusal_judge(type("Own", (KeywordJudge,), attributes)).fingerprint
        for attributes in ({}, {"fingerprint": "2"}, {"name": "other"}, {"fingerprint": "2"})
    ]
    assert len(set(fingerprints)) == 3
    assert fingerprints[1] == fingerprints[3]
    assert all(len(fingerprint) == 64 for fingerprint in fingerprints)
    assert "'fingerprint' of the judge 'keywords' is an int" in failure(
        type("Own", (KeywordJudge,), {"fingerprint": 3})
    )


def test_the_fingerprint_follows_what_a_judge_holds() -> None:
    values = [[True], [False], (True,), {"a": 1}, {"a": 1.0}, "a", {"a", "b"}, re.compile("a")]
    values += [Path("a"), np.ones(2), np.zeros(2), len, KeywordJudge(), PaperRefusalJudge(), None]
    prints = [as_refusal_judge(Returning(value)).fingerprint for value in values]
    assert len(set(prints)) == len(values)
    again = [as_refusal_judge(Returning(value)).fingerprint for value in values]
    assert again == prints

    def at_least(count: int) -> Any:
        return lambda queries, responses: [len(response) >= count for response in responses]

    one, two, other = (as_refusal_judge(at_least(count)).fingerprint for count in (1, 2, 1))
    assert one == other != two


def test_a_judge_that_cannot_be_identified_needs_a_fingerprint() -> None:
    import torch

    for value in (torch.ones(2), threading.Lock(), [{"deep": iter("ab")}]):
        message = failure(Returning(value))
        assert "'Returning' holds a value of type" in message
        assert "give it a text attribute 'fingerprint'" in message
    judge = Returning(threading.Lock())
    judge.fingerprint = "1"  # type: ignore[attr-defined]
    assert as_refusal_judge(judge).fingerprint
    held: list[object] = []
    held.append(held)
    assert "'Returning' holds a value" in failure(Returning(held))


def test_a_judge_may_derive_from_the_protocol() -> None:
    class Derived(Judge):
        def judge(
            self,
            queries: Sequence[str | None],
            responses: Sequence[str],
            progress: Progress | None = None,
        ) -> list[bool | None]:
            return [True] * len(responses)

    derived: Any = Derived
    judge, again = as_refusal_judge(derived()), as_refusal_judge(derived())
    assert judge.name == "Derived"
    assert judge.fingerprint == again.fingerprint
    assert judge.judge([None], ["x"]) == [True]


def test_code_without_a_file_is_told_apart() -> None:
    def defined(text: str) -> Any:
        space: dict[str, Any] = {"__name__": "notebook"}
        exec(text, space)
        return space["judge"]

    one, two, again = (
        as_refusal_judge(
            defined(f"def judge(queries, responses): return [x in {words} for x in responses]")
        ).fingerprint
        for words in ("{'a', 'b', 'c'}", "{'a', 'b', 'd'}", "{'c', 'b', 'a'}")
    )
    assert one == again != two
    kinds = [
        defined(f"class judge:\n def judge(self, queries, responses): return [{verdict}]")
        for verdict in ("True", "False", "True")
    ]
    three, four, five = (as_refusal_judge(kind).fingerprint for kind in kinds)
    assert three == five != four


# Files


@pytest.mark.parametrize(
    ("name", "verdicts"),
    [
        ("KeywordJudge", [True, False, False]),
        ("function", [False, True, False]),
        ("made", [False, False, True]),
    ],
)
def test_a_file_holds_a_class_a_function_or_an_object(
    file: Path, name: str, verdicts: list[bool]
) -> None:
    path_before = list(sys.path)
    for spec in (f"mine.py:{name}", f"{file}:{name}"):
        judge = as_refusal_judge(spec)
        assert judge.name == f"mine.py:{name}"
        assert judge.judge([None] * 3, ["cannot", "no", "never"]) == verdicts
        assert as_harm_judge(spec).fingerprint == judge.fingerprint
    assert sys.path == path_before
    assert sorted(entry.name for entry in file.parent.iterdir()) == ["mine.py", "neighbour.py"]


def test_the_fingerprint_changes_with_the_file(file: Path, tmp_path: Path) -> None:
    specs = [f"mine.py:{name}" for name in ("KeywordJudge", "function", "made")]
    before = [as_refusal_judge(spec).fingerprint for spec in specs]
    assert len(set(before)) == 3
    # As long as before and in the same second: no stale bytecode may be taken for it.
    file.write_text(FILE.replace('startswith("no")', 'startswith("ye")'), encoding="utf-8")
    after = [as_refusal_judge(spec).fingerprint for spec in specs]
    assert not set(before) & set(after)
    assert judged("mine.py:function", "yes") == [True]
    # The same content elsewhere is the same judge.
    file.write_text(FILE, encoding="utf-8")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for source in tmp_path.glob("*.py"):
        (moved / source.name).write_bytes(source.read_bytes())
    assert [as_refusal_judge(f"elsewhere/{spec}").fingerprint for spec in specs] == before


def test_the_fingerprint_is_of_what_was_loaded(file: Path) -> None:
    judge = as_refusal_judge("mine.py:function")
    before = judge.fingerprint
    file.write_text("", encoding="utf-8")
    assert judge.fingerprint == before
    assert judge.judge([None], ["no"]) == [True]


FILES = {
    "mine.py": "from words import WORDS\n"
    "def judge(queries, responses): return [WORDS[0] in text for text in responses]\n"
    "class Kind:\n    def judge(self, queries, responses): return judge(queries, responses)\n",
    "words.py": "from importlib import import_module\n"
    "from deeper.list import WORDS\nimport_module('late')\n",
    "late.py": "VALUE = 1\n",
    "deeper/__init__.py": "",
    "deeper/list.py": "from .more import WORDS\n",
    "deeper/more.py": "WORDS = ['sorry']\n",
    "other.py": "VALUE = 2\n",
}


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", ["judge", "Kind"])
def test_the_fingerprint_covers_what_a_file_imports_from_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, FILES)
    spec = f"mine.py:{name}"
    first = as_refusal_judge(spec)
    assert first.judge([None], ["sorry"]) == [True]
    write_files(tmp_path, {"other.py": "VALUE = 3\n"})  # which nothing imports
    assert as_refusal_judge(spec).fingerprint == first.fingerprint
    seen = {first.fingerprint}
    changed = {"deeper/more.py": "WORDS = ['sure']\n", "late.py": "VALUE = 3\n"}
    changed |= {"words.py": FILES["words.py"] + "# changed\n", "deeper/__init__.py": "# changed\n"}
    for file, text in changed.items():
        write_files(tmp_path, {file: text})
        judge = as_refusal_judge(spec)
        assert judge.fingerprint not in seen
        assert judge.judge([None], ["sure"]) == [True]
        seen.add(judge.fingerprint)
    assert first.judge([None], ["sorry"]) == [True]
    write_files(tmp_path, FILES)
    assert as_refusal_judge(spec).fingerprint == first.fingerprint
    assert not list(tmp_path.rglob("__pycache__"))


def test_neighbours_of_one_name_are_told_apart(tmp_path: Path) -> None:
    write_files(tmp_path / "one", FILES)
    write_files(tmp_path / "two", FILES | {"deeper/more.py": "WORDS = ['sure']\n"})
    one, two = (as_refusal_judge(f"{tmp_path}/{name}/mine.py:judge") for name in ("one", "two"))
    assert one.judge([None], ["sorry"]) == two.judge([None], ["sure"]) == [True]
    assert one.fingerprint != two.fingerprint
    again = as_refusal_judge(f"{tmp_path}/one/mine.py:judge")
    assert again.fingerprint == one.fingerprint


def test_the_fingerprint_of_an_object_covers_what_its_module_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    write_files(tmp_path / "mypackage", {"__init__.py": "", "judges/__init__.py": ""})
    write_files(
        tmp_path / "mypackage",
        {
            "words.py": "WORDS = ['sorry']\n",
            "judges/mine.py": FILES["mine.py"].replace("words", "..words"),
        },
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("mypackage.judges.mine")
    for judge in (module.judge, module.Kind()):
        before = as_refusal_judge(judge).fingerprint
        write_files(tmp_path / "mypackage", {"words.py": "WORDS = ['sure']\n"})
        assert as_refusal_judge(judge).fingerprint != before
        write_files(tmp_path / "mypackage", {"words.py": "WORDS = ['sorry']\n"})
        assert as_refusal_judge(judge).fingerprint == before


def test_the_fingerprint_covers_the_variables_of_a_notebook() -> None:
    space: dict[str, Any] = {"__name__": "notebook", "WORDS": ["sorry"]}
    code = (
        "def found(text): return any(word in text for word in WORDS)\n"
        "def judge(queries, responses): return [found(text) and WORDS for text in responses]\n"
    )
    exec(code, space)
    before = as_refusal_judge(space["judge"]).fingerprint
    assert as_refusal_judge(space["judge"]).fingerprint == before
    space["WORDS"].append("sure")
    after = as_refusal_judge(space["judge"]).fingerprint
    assert after != before
    exec("def found(text): return False", space)
    assert as_refusal_judge(space["judge"]).fingerprint != after
    space["WORDS"] = threading.Lock()
    assert "holds a value of type" in failure(space["judge"])
    space["judge"].fingerprint = "version 1"
    assert as_refusal_judge(space["judge"]).fingerprint


def test_a_file_may_hold_one_of_demurs_judges_set_up(file: Path) -> None:
    file.write_text(
        "from demur.judges import EndpointJudge, EndpointSettings\n"
        "settings = EndpointSettings(base_url='http://localhost:1/v1', concurrency=2)\n"
        "judge = EndpointJudge('m', settings)\n",
        encoding="utf-8",
    )
    assert as_harm_judge("mine.py:judge").name == "endpoint:m"
    with pytest.raises(DemurError, match="judges harm, not refusal"):
        as_refusal_judge("mine.py:judge")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("missing.py:Judge", "There is no file 'missing.py': check the path"),
        ("mine.py:Missing", "'mine.py' defines no 'Missing': choose from KeywordJudge, "),
        ("mine.py:", "names no object: write FILE.py:NAME"),
        ("mine.py", "names no object: write FILE.py:NAME"),
        ("C:\\judges\\mine.py", "names no object: write FILE.py:NAME"),
        ("mine.py:a.b", "'a.b' is not a Python name"),
        ("mine.py:number", "'mine.py:number' is not a judge"),
        ("mine.py:Needy", "'mine.py:Needy' cannot be made without arguments (TypeError"),
        ("mine.py:Broken", "cannot be made without arguments (OSError: no such model)"),
        ("mine.txt:Judge", "There is no refusal judge 'mine.txt:Judge'"),
        (".:Judge", "There is no refusal judge '.:Judge'"),
        ("folder.py:Judge", "'folder.py' cannot be read"),
        ("\0.py:Judge", "cannot be read"),
    ],
)
def test_mistakes_in_a_spec_are_one_line(file: Path, spec: str, words: str) -> None:
    (file.parent / "folder.py").mkdir()
    assert words in failure(spec)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("def judge(:\n", "(SyntaxError: invalid syntax (mine.py, line 1))"),
        ("raise RuntimeError('first\\nsecond')\n", "(RuntimeError: first)"),
        ("import no_such_package\n", "(ModuleNotFoundError: No module named 'no_such_package')"),
        ("import sys\nsys.exit(3)\n", "(SystemExit: 3)"),
        ("\0", "cannot be imported"),
        ("x = '\xff'", "cannot be imported (SyntaxError"),
    ],
)
def test_a_file_that_fails_is_one_line(file: Path, content: str, words: str) -> None:
    modules, path = set(sys.modules), list(sys.path)
    file.write_bytes(content.encode("latin-1"))
    message = failure("mine.py:judge")
    assert "'mine.py' cannot be imported" in message
    assert words in message
    assert sys.path == path
    assert not {name for name in set(sys.modules) - modules if "mine" in name}
    file.write_text(FILE, encoding="utf-8")
    assert judged("mine.py:function", "no") == [True]


def test_a_drive_letter_is_part_of_the_path(file: Path) -> None:
    """On Windows it is a drive; elsewhere it is an unusual name of a file."""
    if sys.platform == "win32":
        spec = f"{file}:function"
        assert file.drive
    else:
        (file.parent / "C:mine.py").write_text(FILE, encoding="utf-8")
        spec = "C:mine.py:function"
    assert judged(spec, "no", "yes") == [True, False]


def test_files_of_one_name_are_told_apart(file: Path) -> None:
    other = file.parent / "other" / "mine.py"
    other.parent.mkdir()
    other.write_text("def function(queries, responses): return [None]\n", encoding="utf-8")
    first, second = as_refusal_judge("mine.py:function"), as_refusal_judge(f"{other}:function")
    assert first.judge([None], ["no"]) == [True]
    assert second.judge([None], ["no"]) == [None]
    assert first.fingerprint != second.fingerprint


def test_a_misspelled_verdict_is_named() -> None:
    class Misspells:
        tells_deflections = True

        def judge(self, queries: Sequence[str | None], responses: Sequence[str]) -> list[str]:
            return ["refuse" for _ in responses]

    with pytest.raises(DemurError, match="returned 'refuse' as a verdict: return 'refuses'"):
        as_refusal_judge(Misspells).judge(["Hello?"], ["Hello."])
