"""Fixtures that several test modules share, and the order of the tests."""

from __future__ import annotations

import os

# The models of the tests are tiny: more threads slow them down, and pytest-xdist's workers share
# the cores. The processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest

from tests.tiny_checkpoints import save_llama

REFERENCE = Path(
    os.environ.get("DEMUR_REFERENCE") or Path(__file__).parents[2] / "shared" / "reference"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest go first, so that no worker is left alone with them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("real_model") is None)


@pytest.fixture
def reference(request: pytest.FixtureRequest) -> Path:
    """The folder of the reference data, for tests that are marked `reference`."""
    if request.node.get_closest_marker("reference") is None:
        pytest.fail("This test reads the reference data: mark it `reference`.", pytrace=False)
    if not REFERENCE.is_dir():
        pytest.fail(
            f"There is no reference data in {REFERENCE}: set DEMUR_REFERENCE to its folder.",
            pytrace=False,
        )
    return REFERENCE


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder for the test alone."""
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama on disk, to be read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_llama(folder)
    return folder
