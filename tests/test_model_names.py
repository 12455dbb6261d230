"""Names of models on the hub as people write them, against a stand-in for the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demur import ChatModel, DemurError
from demur.chat.catalog import is_public_name
from demur.hub import HubModel
from tests.hub_server import Hub, serving_hub
from tests.tiny import save_tiny_model, tiny_model, tiny_tokenizer
from tests.tiny_checkpoints import save_llama_gguf

NAME = "someone/tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> Iterator[Hub]:
    """The stand-in with a model of two commits and its GGUF files."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    with serving_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize(
    ("text", "name", "revision", "file", "quantization"),
    [
        ("a/b", "a/b", None, None, None),
        ("a/b/", "a/b", None, None, None),
        ("a/b@v1.0", "a/b", "v1.0", None, None),
        ("a/b@refs/pr/1", "a/b", "refs/pr/1", None, None),
        ("a/b-GGUF:Q4_K_M", "a/b-GGUF", None, None, "Q4_K_M"),
        ("a/b@v1:Q8_0", "a/b", "v1", None, "Q8_0"),
        ("a/b/c.Q4_K_M.gguf", "a/b", None, "c.Q4_K_M.gguf", None),
        ("a/b/Q4/c-00001-of-00002.gguf", "a/b", None, "Q4/c-00001-of-00002.gguf", None),
        ("hf:a/b", "a/b", None, None, None),
        ("hf.co/a/b:Q4_K_M", "a/b", None, None, "Q4_K_M"),
        ("https://huggingface.co/a/b", "a/b", None, None, None),
        ("https://huggingface.co/a/b/", "a/b", None, None, None),
        ("https://huggingface.co/a/b?library=transformers", "a/b", None, None, None),
        ("https://huggingface.co/a/b/tree/main", "a/b", None, None, None),
        ("https://huggingface.co/a/b/tree/v2", "a/b", "v2", None, None),
        ("https://huggingface.co/a/b/blob/main/c.gguf", "a/b", None, "c.gguf", None),
        (
            "https://huggingface.co/a/b/resolve/v2/d/c.gguf?download=true",
            "a/b",
            "v2",
            "d/c.gguf",
            None,
        ),
        ("https://huggingface.co/a/b/blob/main/config.json", "a/b", None, None, None),
    ],
)
def test_names_that_people_write(
    text: str, name: str, revision: str | None, file: str | None, quantization: str | None
) -> None:
    model = HubModel.parse(text)
    assert model is not None
    assert (model.name.repository, model.name.revision) == (name, revision)
    assert (model.file, model.quantization) == (file, quantization)
    assert HubModel.parse(str(model)) == model
    assert is_public_name(str(model))


@pytest.mark.parametrize(
    "text",
    ["a", "a/b/c", "/a/b", "./a/b", "../a", "a/../c.gguf", "a/b/../c.gguf", "a/b.gguf", "c.gguf",
     "https://example.com/a/b", "https://huggingface.co/a", "http://[/a/b", "a/b:", "a/b@"],
)  # fmt: skip
def test_texts_that_are_no_name(text: str) -> None:
    assert HubModel.parse(text) is None


def test_a_revision_is_what_is_loaded(hub: Hub, tmp_path: Path) -> None:
    first = hub.add(NAME, files_of(save_tiny_model(tmp_path / "first")))
    tiny_model("qwen2").save_pretrained(tmp_path / "second")
    second = hub.add(NAME, files_of(tmp_path / "second"))
    newest = ChatModel.load(NAME + "/", dtype="float32")
    older = ChatModel.load(f"{NAME}@{first}", dtype="float32")
    by_address = ChatModel.load(f"{hub.url}/{NAME}/tree/{first}", dtype="float32")
    assert newest.engine.model.config.model_type == "qwen2"
    assert newest.identity == f"{NAME}@{second}"
    assert older.engine.model.config.model_type == "llama"
    assert older.identity == by_address.identity == f"{NAME}@{first}"
    assert older.name == by_address.name == f"{NAME}@{first}"
    with pytest.raises(DemurError, match=r"names a revision that the repository does not have"):
        ChatModel.load(f"{NAME}@nowhere")


def test_a_gguf_file_by_its_quantization_and_by_its_path(
    hub: Hub, saved: Path, tmp_path: Path
) -> None:
    gguf_file = tmp_path / "tiny.gguf"
    save_llama_gguf(gguf_file, saved)
    content = gguf_file.read_bytes()
    hub.add(
        "someone/tiny-GGUF",
        {
            "tiny-Q8_0.gguf": content,
            "tiny-Q4_K_M.gguf": b"no model",
            "tiny-IQ4_XS.gguf": b"no model",
            "mmproj-tiny-Q8_0.gguf": b"no model",
            "README.md": b"words",
        },
    )
    by_kind = ChatModel.load("someone/tiny-GGUF:q8_0", dtype="float32")
    by_path = ChatModel.load("someone/tiny-GGUF/tiny-Q8_0.gguf", dtype="float32")
    assert by_kind.identity == by_path.identity == ChatModel.load(gguf_file).identity
    assert by_kind.name == "someone/tiny-GGUF:q8_0"
    assert not any("Q4_K_M.gguf" in request for request in hub.requests)
    with pytest.raises(
        DemurError, match=r"holds GGUF files: name one, .*:\w+ \(IQ4_XS, Q4_K_M, Q8_0\)"
    ):
        ChatModel.load("someone/tiny-GGUF")
    hub.add("someone/split", {"tiny-Q8_0-00001-of-00002.gguf": b"x", "config.json": b"{}"})
    for split in ("someone/split:Q8_0", "someone/split/tiny-Q8_0-00001-of-00002.gguf"):
        with pytest.raises(DemurError, match=r"is split into 2 files: .*llama-gguf-split"):
            ChatModel.load(split)
    with pytest.raises(DemurError, match=r"has no GGUF file Q4_KM \(did you mean 'Q4_K_M'\?\)"):
        ChatModel.load("someone/tiny-GGUF:Q4_KM")
    with pytest.raises(DemurError, match=r"has no file 'tiny-Q8.gguf' \(did you mean"):
        ChatModel.load("someone/tiny-GGUF/tiny-Q8.gguf")


def test_a_base_model_is_refused_before_its_weights_are_fetched(hub: Hub, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tiny_model("llama, grouped attention").save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    hub.add(NAME, files_of(tmp_path / "base"))
    with pytest.raises(DemurError, match=r"without a chat template, .* --chat-template FILE"):
        ChatModel.load(NAME)
    assert any("config.json" in request for request in hub.requests)
    assert not any("safetensors" in request for request in hub.requests)


def test_a_model_that_the_hub_does_not_have(hub: Hub) -> None:
    with pytest.raises(DemurError, match=r"no repository on the hub .*: check the spelling"):
        ChatModel.load("someone/nothing")


@pytest.mark.parametrize("name", ["a" * 300, "a" * 300 + "/" + "b" * 300, "a\0b", "/dev/zero"])
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(DemurError, match=r"is neither a catalog model") as info:
        ChatModel.load(name)
    assert len(str(info.value)) < 500


def test_the_nearest_name_is_said(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "careful-model")
    with pytest.raises(DemurError, match=r"did you mean 'qwen2.5-coder-0.5b'\?"):
        ChatModel.load("qwen2.5-coder-05b")
    with pytest.raises(DemurError, match=r"did you mean '.*careful-model'\?"):
        ChatModel.load(str(tmp_path / "carefull-model"))
