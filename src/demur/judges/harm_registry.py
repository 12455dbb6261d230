"""Earlier name of `as_harm_judge`, for callers that have not been moved to it."""

from demur.judges.registry import as_harm_judge as get_harm_judge

__all__ = ["get_harm_judge"]
