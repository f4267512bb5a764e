"""What is kept of a prediction: JSON, CSV, a page and a PDF to read and print, and a picture."""

from __future__ import annotations

from radllm_backend.reports.files import FORMATS, write_reports
from radllm_backend.reports.html import report_html

__all__ = ["FORMATS", "report_html", "write_reports"]
