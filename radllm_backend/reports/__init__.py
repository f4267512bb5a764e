"""What is kept of a prediction: JSON, CSV and a page to read and print."""

from __future__ import annotations

from radllm_backend.reports.html import report_html, write_reports

__all__ = ["report_html", "write_reports"]
