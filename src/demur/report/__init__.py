"""A report that opens in a browser: one HTML file that needs no network."""

from demur.report.writing import REPORT, Work, write_report

__all__ = ["REPORT", "Work", "write_report"]
