"""The examples do what they say: the compose file, and the page for a Space."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from demur import ChatModel, DemurError
from demur.cli.verbs import VERBS
from demur.prompts import SafetyPrompt
from demur.settings import options_in
from tests.command_line import demur, mistake
from tests.report_pages import read
from tests.tiny import save_tiny_model

EXAMPLES = Path(__file__).parents[1] / "examples"
COMPOSE = EXAMPLES / "compose"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    content = yaml.safe_load((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))
    assert set(content["volumes"]) == {"models"}
    found: dict[str, Any] = content["services"]
    return found


def test_the_served_prompt_has_options_that_exist(services: dict[str, Any]) -> None:
    verb, run, *options = services["demur"]["command"]
    (found,) = (one for one in VERBS if one.name == verb)
    known = {one.flag for one in options_in(found.load().settings)}
    assert {option.partition("=")[0] for option in options} <= known
    assert run.startswith("/prompts/")
    # The command itself takes them all, and stumbles over the folder alone, which is not here.
    assert "/prompts/my-run" in mistake(demur(verb, run, *options))
    given = dict(option.removeprefix("--").split("=", 1) for option in options)
    assert given["endpoint"] == "http://vllm:8000/v1"
    assert services["demur"]["ports"] == [f"8080:{given['port']}"]
    assert services["demur"]["volumes"] == ["./prompts:/prompts:ro"]


def test_users_reach_the_proxy_alone_and_need_a_key(services: dict[str, Any]) -> None:
    assert set(services) == {"vllm", "demur"}
    assert "ports" not in services["vllm"]
    (key,) = services["demur"]["environment"]
    assert key == "DEMUR_SERVE_KEY"
    assert ":?" in services["demur"]["environment"][key]
    assert services["demur"]["depends_on"] == {"vllm": {"condition": "service_healthy"}}


def test_vllm_is_started_as_the_guide_says(services: dict[str, Any]) -> None:
    guide = (EXAMPLES.parent / "docs/serve.md").read_text(encoding="utf-8").replace("=", " ")
    for option in services["vllm"]["command"][1:]:
        assert option.replace("=", " ") in guide


def test_the_image_has_the_files_that_it_is_built_from(services: dict[str, Any]) -> None:
    build = services["demur"]["build"]
    root = (COMPOSE / build["context"]).resolve()
    recipe = (root / build["dockerfile"]).read_text(encoding="utf-8")
    copied = [line.split()[1:-1] for line in recipe.splitlines() if line.startswith("COPY")]
    for name in (name for names in copied for name in names):
        assert (root / name).exists(), name
    assert "'.[serve]'" in recipe
    # An image without CUDA: the argument is declared in the recipe, used there, and passed on.
    assert set(build["args"]) == set(re.findall(r"^ARG (\w+)=", recipe, re.MULTILINE))
    assert recipe.index('--index-url "$TORCH_INDEX" torch') < recipe.index("'.[serve]'")
    assert 'ENTRYPOINT ["demur"]' in recipe


def test_the_reports_of_the_gallery_are_redacted_and_open() -> None:
    """They are of real models, so no answer to a harmful query is in them."""
    pages = sorted((EXAMPLES.parent / "docs/gallery").glob("*.html"))
    assert pages
    guide = (EXAMPLES.parent / "docs/gallery.md").read_text(encoding="utf-8")
    for path in pages:
        assert f"gallery/{path.name}" in guide
        (subject,) = read(path).data
        for query, _, text, verdict, _, showing in subject["responses"]:
            if subject["queries"][query][1] == "harmful" and verdict in (None, "answers"):
                assert (text, showing) == ("", 2)
        assert path.stat().st_size < 250_000


def test_the_space_has_a_header_that_the_hub_reads() -> None:
    header = (EXAMPLES / "space/README.md").read_text(encoding="utf-8").split("---")[1]
    found = yaml.safe_load(header)
    assert found["sdk"] == "gradio"
    assert re.fullmatch(r"\d+\.\d+\.\d+", found["sdk_version"])
    assert (EXAMPLES / "space" / found["app_file"]).is_file()
    assert len(found["short_description"]) <= 60  # the hub's limit
    needed = (EXAMPLES / "space/requirements.txt").read_text(encoding="utf-8").splitlines()
    assert "demur[space]" in needed


@pytest.fixture(scope="module")
def app() -> ModuleType:
    pytest.importorskip("gradio")
    spec = importlib.util.spec_from_file_location("space_app", EXAMPLES / "space/app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def comparer(app: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    model = ChatModel.load(folder, dtype="float32")
    return app.Comparer(model, {"none": None, "mine": SafetyPrompt("mine", "w1 w2 .")}, tokens=6)


def test_a_question_is_answered_under_each_prompt(comparer: Any) -> None:
    steps = list(comparer.answers("w3 w4 ?"))
    assert all(len(step) == 4 for step in steps)
    first, last = steps[0], steps[-1]
    assert first[1]
    assert first[2:] == ["", ""]  # one prompt after the other
    assert last[1]
    assert last[3]
    verdicts = {"Refused", "Deflected", "Answered", "No verdict"}
    assert {last[0], last[2]} <= verdicts
    assert list(comparer.answers("w3 w4 ?"))[-1] == last


def test_the_page_is_built_and_asks(app: ModuleType, comparer: Any) -> None:
    gradio = pytest.importorskip("gradio")

    blocks = app.page(comparer)
    shown = str(blocks.get_config_file())
    for text in ("No prompt", "### mine", "side by side", *app.QUESTIONS):
        assert text in shown
    with pytest.raises(gradio.Error, match="empty"):
        list(comparer.answers("  "))


def test_the_prompts_of_the_page_are_named(app: ModuleType, tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "mine.txt").write_text(f"Be {place}.")
    # What a public page shows of a file is its name, and not where it lies.
    files = f"{tmp_path}/one/mine.txt,{tmp_path}/two/mine.txt"
    assert list(app.named_prompts(f"none,{files}")) == ["none", "mine.txt", "mine.txt (2)"]
    found = app.named_prompts("none, long, long")
    assert list(found) == ["none", "long"]
    assert found["none"] is None
    assert found["long"].name == "long"
    with pytest.raises(DemurError, match="names no prompt"):
        app.named_prompts(" , ")
