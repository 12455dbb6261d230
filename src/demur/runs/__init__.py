"""What lasts: the folder of a run and the records in it."""

from demur.runs.folder import RunFolder
from demur.runs.records import Measurement, Queries, Response

__all__ = ["Measurement", "Queries", "Response", "RunFolder"]
