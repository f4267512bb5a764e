"""The report of a prediction as one page that needs nothing but itself."""

from __future__ import annotations

import base64
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from radllm_backend.models.prediction import RESEARCH_USE_ONLY, percent
from radllm_backend.reports.content import STRIP_KEY, Content, signed, significant
from radllm_backend.reports.geometry import probability_bar
from radllm_backend.reports.key_image import OUTLINE

_BAR_START, _BAR_WIDTH = 10, 380
"""In units of the bar's drawing, which is 400 wide."""


def report_html(report: Content) -> str:
    """One self-contained page: no network, no script, pictures inside."""
    picture = report.picture
    return _template().render(
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


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("radllm_backend.reports", "templates"),
        autoescape=True,  # everything in a prediction is somebody else's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, significant=significant, signed=signed, units=_units)
    return environment.get_template("report.html.jinja")


def _units(number: float) -> str:
    """A place or a length in a drawing."""
    return f"{number:.1f}"
