"""A report that opens in a browser: one file, no network. Reads finished folders, writes HTML."""

from demur.report.writing import REPORT, ensure_report, write_report

__all__ = ["REPORT", "ensure_report", "write_report"]
