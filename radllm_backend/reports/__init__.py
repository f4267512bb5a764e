"""What is written about a lesion or a study: pages, PDF, tables and DICOM."""

from __future__ import annotations

from radllm_backend.reports.files import FORMATS, write_reports
from radllm_backend.reports.html import report_html

__all__ = ["FORMATS", "report_html", "write_reports"]
