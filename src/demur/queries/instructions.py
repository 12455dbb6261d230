"""Ordinary instructions: what a prompt must not make a model worse at."""

from __future__ import annotations

from importlib.resources import files


def load_instructions() -> tuple[str, ...]:
    """The 60 built-in instructions, written for demur, in a fixed order."""
    source = files("demur.queries") / "sets" / "instructions.txt"
    lines = source.read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip())
