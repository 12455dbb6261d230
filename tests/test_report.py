"""The report as a file: one, self-contained, its content text and never markup."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from demur import DemurError, write_report
from demur.cli import main
from demur.report.collecting import MOST_RESPONSES
from tests.report_folders import BASIC, COUNT, finished_evaluation, finished_run

LOADING = {"src", "href", "srcset", "data", "action", "formaction", "poster", "background"}


class Page(HTMLParser):
    """Tags, attributes and the text of scripts, styles and everything else."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.blocks: dict[str, list[str]] = {"script": [], "style": []}
        self.words: list[str] = []
        self._block = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in self.blocks:
            self._block = tag
            self.blocks[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._block:
            self._block = ""

    def handle_data(self, data: str) -> None:
        if self._block:
            self.blocks[self._block][-1] += data
        else:
            self.words.append(data)

    @property
    def data(self) -> Any:
        return json.loads(self.blocks["script"][0])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished_run(tmp_path / "run")


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_a_report_is_one_file_that_loads_nothing(run: Path) -> None:
    page = read(write_report([run]))
    assert not {"img", "iframe", "link", "object", "embed", "base"} & set(page.tags)
    loaded = [one for one in page.attributes if one[1] in LOADING]
    assert loaded == [("a", "href", "#responses")]
    assert not [one for one in page.attributes if one[1].startswith("on") or one[1] == "style"]


def test_nothing_but_its_own_script_and_style_may_run(run: Path) -> None:
    page = read(write_report([run]))
    assert page.tags.count("script") == 2  # the data, and the script
    assert page.tags.count("style") == 1
    policy = next(
        value for tag, name, value in page.attributes if tag == "meta" and "default-src" in value
    )
    for block in (page.blocks["script"][1], page.blocks["style"][0]):
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_texts_arrive_whole_and_as_text(run: Path) -> None:
    page = read(write_report([run]))
    assert {"script", "b", "i", "svg"} & set(page.tags) == {"script", "svg"}
    (subject,) = page.data
    assert subject["conditions"] == ["none", BASIC, "optimized"]
    assert len(subject["queries"]) == 4 * COUNT
    assert len(subject["responses"]) == 5 * 2 * COUNT
    texts = {query[0] for query in subject["queries"]}
    assert "harmful 3 <script>window.hacked = 1</script>" in texts
    assert any("\u2028\u2029\u202e" in response[2] for response in subject["responses"])
    assert "tiny <b>model, optimized from <i>mine.txt" in "".join(page.words)


def test_what_a_run_shows(run: Path) -> None:
    page = read(write_report([run]))
    words = " ".join(" ".join(page.words).split())
    assert "The optimized prompt refuses more harmful queries than" in words
    assert "which is better: 90 % against 50 %" in words
    assert f"as many harmless queries as {BASIC}" in words
    assert "95 % intervals" in words
    assert "demur optimize tiny <b>model --basic-prompt" in words
    assert "version of demur" in words
    for title in ("refusal loss", "harmfulness loss", "loss outside the components"):
        assert title in words
    views = page.data[0]["views"]
    assert [view["title"] for view in views] == ["Held-out queries", "Anchor queries", "Training"]
    assert [one["name"] for one in views[0]["series"]] == ["none", BASIC, "optimized"]
    assert views[0]["arrows"] == [[0, 1, True], [1, 2, False]]
    assert [one["name"] for one in views[2]["series"]] == [BASIC, "after epoch 1", "during epoch 2"]
    assert [one["refused"] is None for one in views[2]["series"]] == [False, False, True]
    rates = views[0]["series"][2]["refused"]
    assert sum(rates[:COUNT]) == pytest.approx(0.9 * COUNT)


def test_a_report_of_an_evaluation(tmp_path: Path) -> None:
    page = read(finished_evaluation(tmp_path / "e") / "report.html")
    words = " ".join(page.words)
    assert "Responses, judged" in words
    assert "Refused, by category" in words
    assert "demur evaluate --responses e.jsonl --judge default" in words
    assert len(page.data[0]["responses"]) == 60
    assert page.data[0]["views"] == []


def test_several_stand_side_by_side(run: Path, tmp_path: Path) -> None:
    other = finished_evaluation(tmp_path / "e")
    path = write_report([run, other, run], tmp_path / "all.html")
    page = read(path)
    assert [one["kind"] for one in page.data] == ["run", "evaluation", "run"]
    assert "3 results side by side" in " ".join(page.words)
    assert "differs" in " ".join(page.words)


def test_the_same_folder_gives_the_same_report(run: Path, tmp_path: Path) -> None:
    first = write_report([run], tmp_path / "1.html").read_bytes()
    assert write_report([run], tmp_path / "2.html").read_bytes() == first


def test_many_and_long_responses_are_cut_with_a_word(tmp_path: Path) -> None:
    # Two conditions on each query: more responses than are shown.
    folder = finished_evaluation(tmp_path / "e", queries=MOST_RESPONSES // 2 + 50, words=80)
    path = folder / "report.html"
    page = read(path)
    words = " ".join(page.words)
    assert len(page.data[0]["responses"]) == MOST_RESPONSES
    assert "10,000 of 10,100 responses" in words
    assert "responses are cut to 300 characters here" in words
    assert path.stat().st_size < 8_000_000


def test_five_thousand_responses_stay_below_five_megabytes(tmp_path: Path) -> None:
    folder = finished_evaluation(tmp_path / "e", queries=1000, prompts=5, words=60)
    assert (folder / "report.html").stat().st_size < 5_000_000


def test_an_unfinished_or_foreign_folder_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DemurError, match="not the folder of a run"):
        write_report([tmp_path])
    with pytest.raises(DemurError, match="nothing to report"):
        write_report([])
    with pytest.raises(DemurError, match="is a folder"):
        write_report([run], tmp_path)
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**metrics, "evaluation": []}))
    with pytest.raises(DemurError, match="damaged"):
        write_report([run])
    (run / "metrics.json").unlink()
    with pytest.raises(DemurError, match="not finished"):
        write_report([run])
    assert not (run / "report.html").exists()


def test_the_command(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    def demur(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["demur", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    assert demur("report", "run")[0] == 0
    assert Path("run/report.html").is_file()
    status, out, _ = demur("report", "run", "run")
    assert (status, out.splitlines()[-1]) == (0, "demur-report.html")
    status, out, err = demur("report", "missing")
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
