"""What the results of an optimization are called, and the folders that they lie in by default."""

from __future__ import annotations

from pathlib import Path

RUNS = Path("demur-runs")
DIAGNOSES = Path("demur-diagnoses")
"""Folder of the diagnoses, whose measurements a run takes over where they are the same."""

OPTIMIZED = "optimized"
"""Name of the optimized prompt."""

MOST_OF_NAME = 60
"""Characters that each part of a folder's name has at most."""
