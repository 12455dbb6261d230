"""What was asked and how fast it was answered, in the text format that Prometheus reads."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histograms' buckets in seconds."""

LEFT = 499
"""Status that is counted where a user left before the answer was whole."""


@dataclass
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS))
    total: float = 0.0
    number: int = 0

    def add(self, seconds: float) -> None:
        self.total += seconds
        self.number += 1
        for row, bound in enumerate(_BOUNDS):
            self.counts[row] += seconds <= bound

    def lines(self, name: str, prompt: str) -> list[str]:
        label = f'prompt="{prompt}"'
        found = [
            f'{name}_bucket{{{label},le="{bound}"}} {count}'
            for bound, count in zip(_BOUNDS, self.counts, strict=True)
        ]
        found.append(f'{name}_bucket{{{label},le="+Inf"}} {self.number}')
        found.append(f"{name}_sum{{{label}}} {self.total:.6f}")
        found.append(f"{name}_count{{{label}}} {self.number}")
        return found


class Metrics:
    """Counts of one server.

    Attributes:
        under_way: requests under way.
    """

    def __init__(self) -> None:
        self.under_way = 0
        self._requests: Counter[tuple[str, int]] = Counter()
        self._first: defaultdict[str, _Histogram] = defaultdict(_Histogram)
        self._whole: defaultdict[str, _Histogram] = defaultdict(_Histogram)

    def ended(self, prompt: str, status: int) -> None:
        """Count a request.

        Args:
            prompt: name of the prompt; empty where the request named none that there is.
            status: status of the answer, or `LEFT`.
        """
        self._requests[prompt, status] += 1

    def timed(self, prompt: str, first: float | None, whole: float) -> None:
        """Count the seconds until an answer began, if it did, and until it was whole."""
        if first is not None:
            self._first[prompt].add(first)
        self._whole[prompt].add(whole)

    def text(self) -> str:
        """All counts."""
        lines = ["# TYPE demur_requests_total counter"]
        for (prompt, status), count in sorted(self._requests.items()):
            lines.append(f'demur_requests_total{{prompt="{prompt}",status="{status}"}} {count}')
        lines += ["# TYPE demur_requests_under_way gauge"]
        lines += [f"demur_requests_under_way {self.under_way}"]
        named = (("first_byte", self._first), ("request", self._whole))
        for what, histograms in named:
            name = f"demur_{what}_seconds"
            lines.append(f"# TYPE {name} histogram")
            for prompt, histogram in sorted(histograms.items()):
                lines += histogram.lines(name, prompt)
        return "\n".join(lines) + "\n"
