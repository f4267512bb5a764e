"""The report of a prediction as one page that needs nothing but itself."""

from __future__ import annotations

import base64

from radllm_backend.models.prediction import RESEARCH_USE_ONLY, percent
from radllm_backend.reports._page import page_template
from radllm_backend.reports.content import STRIP_KEY, Content, signed, significant
from radllm_backend.reports.geometry import probability_bar
from radllm_backend.reports.key_image import OUTLINE

_BAR_START, _BAR_WIDTH = 10, 380
"""In units of the bar's drawing, which is 400 wide."""


def report_html(report: Content) -> str:
    """One self-contained page: no network, no script, pictures inside."""
    picture = report.picture
    template = page_template("report.html.jinja", percent=percent, significant=significant, signed=signed)
    return template.render(
        report=report,
        prediction=report.prediction,
        card=report.card,
        bar=probability_bar(report.prediction, _BAR_START, _BAR_WIDTH),
        notice=RESEARCH_USE_ONLY,
        strip_key=STRIP_KEY,
        picture=base64.b64encode(picture.png).decode() if picture else None,
        outline="#{:02x}{:02x}{:02x}".format(*OUTLINE),
        is_slice=picture is not None and picture.is_slice,
    )
