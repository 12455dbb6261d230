"""The folder of a run: every stage reads its inputs from it and writes its outputs there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import DemurError
from demur.files import read_json, write_bytes, write_json
from demur.runs.records import Measurement, Queries, Response, responses_of, to_row

if TYPE_CHECKING:
    from torch import Tensor

SETTINGS = "settings.json"


class RunFolder:
    """A run on disk. Files are written whole, so that a run can stop at any moment and go on.

    settings.json                     every setting, and the model they were used on
    responses/anchors-long.jsonl      a query a line, with its judged responses
    representations/...safetensors    the same queries' representations
    directions.safetensors            what the anchors say about the model
    training.safetensors              the prompt and the optimizer after the last epoch
    safety_prompt/                    the result
    metrics.json                      the measured rates
    report.html                       all of it, to look at
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def start(cls, path: Path, settings: Mapping[str, Any]) -> RunFolder:
        """Begin a run in `path`, or go on with the one that lies there.

        Args:
            path: a free place, an empty folder or a run with the same settings.
            settings: plain JSON.

        Raises:
            DemurError: the folder holds something else, or a run with other settings.
        """
        folder = cls.check(path, settings)
        if not (path / SETTINGS).exists():
            write_json(path / SETTINGS, settings)
        return folder

    @classmethod
    def check(cls, path: Path, settings: Mapping[str, Any]) -> RunFolder:
        """Make sure that a run of these settings can begin or go on in `path`; write nothing.

        Raises:
            DemurError: as `start`.
        """
        folder = cls(path)
        if path.exists() and not path.is_dir():
            raise DemurError(f"{path} is a file: choose a folder with --output.")
        if (path / SETTINGS).exists():
            folder._check_same(settings)
        elif path.exists() and any(path.iterdir()):
            raise DemurError(f"{path} holds something other than a run: choose another --output.")
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a run that lies in `path`.

        Raises:
            DemurError: there is none.
        """
        if not (path / SETTINGS).is_file():
            raise DemurError(f"{path} is not the folder of a run (it has no {SETTINGS}).")
        return cls(path)

    def settings(self) -> dict[str, Any]:
        """Every setting of the run, and the model it belongs to."""
        settings: dict[str, Any] = read_json(self.path / SETTINGS)
        return settings

    def _check_same(self, settings: Mapping[str, Any]) -> None:
        old, new = self.settings(), json.loads(json.dumps(settings))
        differing = sorted(key for key in {*old, *new} if old.get(key, None) != new.get(key, None))
        if differing:
            key = differing[0]
            raise DemurError(
                f"{self.path} belongs to a run with another {', '.join(differing)} "
                f"({key}: {_short(old.get(key))} there, {_short(new.get(key))} now): "
                "choose another --output or delete that folder."
            )

    def save_tensors(self, name: str, tensors: Mapping[str, Tensor], notes: Any = None) -> None:
        """Write tensors to `name`.safetensors, with plain notes in its header, at once."""
        from safetensors.torch import save

        contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
        header = {"notes": json.dumps(notes)} if notes is not None else None
        write_bytes(self.path / f"{name}.safetensors", save(contiguous, metadata=header))

    def load_tensors(self, name: str) -> tuple[dict[str, Tensor], Any] | None:
        """Tensors and notes of `name`.safetensors, or None where it has not been written.

        Raises:
            DemurError: the file is damaged.
        """
        from safetensors import SafetensorError, safe_open

        path = self.path / f"{name}.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(str(path), framework="pt") as file:
                notes = json.loads((file.metadata() or {}).get("notes", "null"))
                names = file.keys()
                return {key: file.get_tensor(key) for key in names}, notes
        except (SafetensorError, ValueError, OSError) as error:
            raise DemurError(
                f"{path} is damaged: delete it and run the same command again."
            ) from error

    def save_measurement(self, name: str, measurement: Measurement) -> None:
        """Write what has been measured of a condition so far."""
        rows = zip(
            measurement.queries.texts,
            measurement.queries.harmful,
            measurement.responses,
            strict=False,
        )
        lines = [
            json.dumps(to_row(measurement.condition, *row), ensure_ascii=False) for row in rows
        ]
        # The responses come last: their number says how much is done.
        self.save_tensors(
            f"representations/{name}", {"representations": measurement.representations}
        )
        write_bytes(
            self.path / "responses" / f"{name}.jsonl",
            "".join(f"{line}\n" for line in lines).encode(),
        )

    def load_measurement(self, name: str, condition: str, queries: Queries) -> Measurement | None:
        """What has been measured of a condition so far, or None.

        Raises:
            DemurError: the files are damaged or belong to other queries.
        """
        path = self.path / "responses" / f"{name}.jsonl"
        stored = self.load_tensors(f"representations/{name}")
        if stored is None or not path.exists():
            return None
        responses: list[tuple[Response, ...]] = []
        try:
            # Not `splitlines`: it would also break at characters that JSON leaves as they are.
            lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
            for text, line in zip(queries.texts, lines, strict=False):
                row = json.loads(line)
                if row["query"] != text:
                    raise ValueError("another query")
                responses.append(responses_of(row))
        except (ValueError, KeyError, TypeError) as error:
            raise DemurError(
                f"{path} is damaged: delete it and run the same command again."
            ) from error
        representations = stored[0]["representations"][: len(responses)]
        return Measurement(condition, queries, tuple(responses), representations)

    def stored_measurement(self, name: str) -> Measurement | None:
        """A measurement with the queries that its files name, or None where there is none.

        Raises:
            DemurError: the files are damaged.
        """
        path = self.path / "responses" / f"{name}.jsonl"
        stored = self.load_tensors(f"representations/{name}")
        if stored is None or not path.exists():
            return None
        try:
            lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
            rows = [json.loads(line) for line in lines]
            queries = Queries(
                tuple(row["query"] for row in rows),
                tuple(row["label"] == "harmful" for row in rows),
            )
            responses = tuple(responses_of(row) for row in rows)
            condition = str(rows[0]["condition"])
        except (ValueError, KeyError, TypeError) as error:
            raise DemurError(
                f"{path} is damaged: delete it and run the same command again."
            ) from error
        return Measurement(
            condition, queries, responses, stored[0]["representations"][: len(responses)]
        )


def _short(value: Any, most: int = 40) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= most else f"{text[:most]}..."
